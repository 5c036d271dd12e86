"""Drawing with matplotlib, which is optional. A leaf that every room may import."""

import io
import warnings
from pathlib import Path
from typing import Any

from tf_bert.files import atomic_writer

NOT_DRAWN = "not drawn: matplotlib is missing; pip install 'tf_bert[plots]'"


def open_pyplot() -> Any | None:
    """Matplotlib's pyplot, drawing without a screen; None if it is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_picture(pyplot: Any, figure: Any, path: Path) -> str:
    """Writes a figure as PNG and closes it; returns the path, to tell the user.

    Raises:
      InputError: if the operating system refuses to write.
    """
    with atomic_writer(path) as file:
        file.write(picture_bytes(pyplot, figure))
    return str(path)


def picture_bytes(pyplot: Any, figure: Any) -> bytes:
    """A figure as PNG; closes it."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # matplotlib's font lacks some scripts: a box is drawn
        figure.savefig(file, format="png", dpi=110)
    pyplot.close(figure)
    return file.getvalue()
