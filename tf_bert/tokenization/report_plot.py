"""The picture of a vocabulary report."""

from pathlib import Path
from typing import Any

from tf_bert.pictures import NOT_DRAWN, open_pyplot, save_picture
from tf_bert.tokenization.report import VocabReport
from tf_bert.tokenization.report_table import labels
from tf_bert.tokenization.vocab import UNK

_WORD_WIDTH = 28


def draw_vocab_report(report: VocabReport, path: Path) -> str:
    """Draws tokens per word, shares of split and unknown words, and the pieces of the last vocabulary's worst words.

    Args:
      report: the numbers.
      path: the PNG to write.

    Returns:
      What to tell the user: the path, or why there is no picture.

    Raises:
      InputError: if the operating system refuses to write.
    """
    pyplot = open_pyplot()
    if pyplot is None:
        return NOT_DRAWN
    names = labels(report.fits)
    broken = report.broken[-1]
    height = max(5.0, 1.5 + 0.24 * len(broken))
    figure, (tokens, shares, words) = pyplot.subplots(
        1, 3, figsize=(15, height), layout="constrained", width_ratios=(1, 1.4, 2.4)
    )
    figure.suptitle("Vocabulary report")
    _bars(tokens, [""], [[fit.tokens_per_word] for fit in report.fits], "{:.3f}")
    tokens.set_title("tokens per word")
    _bars(
        shares,
        ["split", "[UNK]"],
        [[100 * fit.split_share, 100 * fit.unknown_share] for fit in report.fits],
        "{:.2f}%",
    )
    shares.set_title("share of words (%)")

    bar = 0.8 / len(names)
    for number, name in enumerate(names):
        places = [row + (number - (len(names) - 1) / 2) * bar for row in range(len(broken))]
        pieces = [word.pieces[number] for word in broken]
        bars = words.barh(places, [len(cut) for cut in pieces], height=bar, label=name)
        words.bar_label(bars, [UNK if cut == (UNK,) else "" for cut in pieces], fontsize=7, padding=2)
    words.set_yticks(
        range(len(broken)), [f"{word.word[:_WORD_WIDTH]}  ({word.count:,})" for word in broken], fontsize=8
    )
    words.invert_yaxis()
    words.set_title(f"pieces of the words that {names[-1]} breaks worst (count)")
    words.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=len(names))
    for axis in (tokens, shares, words):
        axis.grid(axis="x" if axis is words else "y", alpha=0.3)

    return save_picture(pyplot, figure, path)


def _bars(axis: Any, groups: list[str], values: list[list[float]], form: str) -> None:
    """A group of bars side by side for every name in `groups`; `values` [vocabulary][group]."""
    width = 0.8 / len(values)
    for number, heights in enumerate(values):
        places = [group + (number - (len(values) - 1) / 2) * width for group in range(len(groups))]
        axis.bar_label(axis.bar(places, heights, width), [form.format(height) for height in heights])
    axis.set_xticks(range(len(groups)), groups)
