"""The picture of a data directory: how much there is at each stage, and how long examples and rows are."""

from pathlib import Path
from typing import Any

from tf_bert.pictures import NOT_DRAWN, open_pyplot, save_picture
from tf_bert.pretraining_data.manifest import LENGTH_BINS, Manifest


def draw_manifest(manifest: Manifest, path: Path) -> str:
    """Draws, for each split, the counts from documents to rows, and histograms of example and row lengths.

    Args:
      manifest: the numbers.
      path: the PNG to write.

    Returns:
      What to tell the user: the path, or why there is no picture.

    Raises:
      InputError: if the operating system refuses to write.
    """
    pyplot = open_pyplot()
    if pyplot is None:
        return NOT_DRAWN
    splits = {name: split for name, split in manifest.splits.items() if split.records}
    figure, axes = pyplot.subplots(
        len(splits), 3, figsize=(15, 1 + 3.4 * len(splits)), layout="constrained", squeeze=False
    )
    figure.suptitle(f"{manifest.row_format} rows of {manifest.max_seq_length} tokens, seed {manifest.seed}")
    for (name, split), (stages, examples, rows) in zip(splits.items(), axes, strict=True):
        counts = split.counts
        funnel = {stage: getattr(counts, stage) for stage in ("documents", "sentences", "tokens", "examples", "rows")}
        bars = stages.barh(list(funnel), list(funnel.values()))
        stages.bar_label(bars, [f"{count:,}" for count in funnel.values()], padding=3)
        stages.set_xscale("log")
        stages.set_xlim(0.5, 30 * max(funnel.values()))
        stages.invert_yaxis()
        stages.set_title(f"{name}: how much there is")
        _histogram(examples, split.lengths.examples, manifest.max_seq_length)
        examples.set_title(f"{name}: tokens of an example")
        _histogram(rows, split.lengths.rows, manifest.max_seq_length)
        rows.set_title(f"{name}: tokens of a row, {split.fill:.1%} full")
    return save_picture(pyplot, figure, path)


def _histogram(axis: Any, counts: list[int], longest: int) -> None:
    width = longest / LENGTH_BINS
    axis.bar([width * i for i in range(LENGTH_BINS)], counts, width, align="edge", edgecolor="white")
    axis.set_xlim(0, longest)
    axis.set_yscale("log")  # nearly all are as long as can be
    axis.grid(axis="y", alpha=0.3)
