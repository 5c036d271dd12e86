"""Lays the metrics of two runs over each other: a table of how they differ, and a picture.

python scripts/compare_runs.py A/metrics.jsonl B/metrics.jsonl [--png comparison.png] [--only train/loss ...]

Compared are the numbers that both runs logged at the same steps.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tf_bert.errors import InputError
from tf_bert.pictures import NOT_DRAWN, open_pyplot, save_picture
from tf_bert.run_log import read_metrics

Curve = dict[int, float]  # by step


class Comparison(NamedTuple):
    """One number of two runs, over the steps that they have in common."""

    name: str
    steps: int
    mean_a: float
    mean_b: float
    mean_difference: float
    """Of B - A, without its sign."""
    largest_difference: float
    """B - A where it is largest."""
    at_step: int


def read_curves(path: Path) -> dict[str, Curve]:
    """The curves of a metrics.jsonl by name.

    Raises:
      InputError: if there is no such file, or it holds no metrics.
    """
    try:
        entries = read_metrics(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected the metrics.jsonl of a run") from error
    curves: dict[str, Curve] = {}
    for entry in entries:
        if not isinstance(entry, dict) or "step" not in entry:
            raise InputError(f"{path}: an entry has no step; expected the metrics.jsonl of a run")
        for name, value in entry.items():
            if name != "step":
                curves.setdefault(name, {})[int(entry["step"])] = value
    if not curves:
        raise InputError(f"{path}: holds no metrics; expected the metrics.jsonl of a run that has logged a step")
    return curves


def compare(a: dict[str, Curve], b: dict[str, Curve]) -> Iterator[Comparison]:
    """One comparison for each name that both have at some step."""
    for name in a:
        if steps := sorted(a[name].keys() & b.get(name, {}).keys()):
            differences = {step: b[name][step] - a[name][step] for step in steps}
            at_step = max(steps, key=lambda step: abs(differences[step]))
            yield Comparison(
                name,
                len(steps),
                sum(a[name][step] for step in steps) / len(steps),
                sum(b[name][step] for step in steps) / len(steps),
                sum(map(abs, differences.values())) / len(steps),
                differences[at_step],
                at_step,
            )


def format_table(comparisons: Sequence[Comparison]) -> str:
    """The table, one name a line."""
    width = max(len(c.name) for c in comparisons)
    titles = ("mean of A", "mean of B", "mean |B - A|", "largest B - A")
    lines = [f"{'name':<{width}}{'steps':>8}" + "".join(f"{title:>15}" for title in titles) + "  at step"]
    for c in comparisons:
        numbers = (c.mean_a, c.mean_b, c.mean_difference, c.largest_difference)
        cells = "".join(f"{number:>15.6g}" for number in numbers)
        lines.append(f"{c.name:<{width}}{c.steps:>8,}{cells}{c.at_step:>9,}")
    return "\n".join(lines)


def draw(paths: Sequence[Path], a: dict[str, Curve], b: dict[str, Curve], names: Sequence[str], png: Path) -> str:
    """Both curves of every name, one picture below the other; returns what to tell the user."""
    if (pyplot := open_pyplot()) is None:
        return NOT_DRAWN
    figure, axes = pyplot.subplots(len(names), 1, figsize=(10, 3 * len(names)), squeeze=False, layout="constrained")
    for axis, name in zip(axes.flat, names, strict=True):
        for label, path, curves, style in (("A", paths[0], a, "-"), ("B", paths[1], b, "--")):
            steps = sorted(curves[name])
            axis.plot(steps, [curves[name][step] for step in steps], style, label=f"{label}: {path}", linewidth=1.2)
        axis.set_title(name)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    return save_picture(pyplot, figure, png)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and draws the picture; returns the exit code."""
    parser = argparse.ArgumentParser(description="Lays the metrics of two runs over each other.")
    parser.add_argument("a", type=Path, help="metrics.jsonl of run A")
    parser.add_argument("b", type=Path, help="metrics.jsonl of run B")
    parser.add_argument("--png", type=Path, default=Path("comparison.png"), help="the picture (comparison.png)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="compare these alone, e.g. train/loss")
    options = parser.parse_args(argv)
    try:
        a, b = read_curves(options.a), read_curves(options.b)
        if options.only:
            a = {name: curve for name, curve in a.items() if name in options.only}
        comparisons = list(compare(a, b))
        if not comparisons:
            raise InputError(
                f"{options.a} and {options.b} have no number at the same step to compare: {_extent(a)}; {_extent(b)}"
            )
        print(format_table(comparisons))
        names = [comparison.name for comparison in comparisons]
        print(f"\nPicture: {draw((options.a, options.b), a, b, names, options.png)}")
        return 0
    except InputError as error:
        print(f"compare_runs.py: {error}", file=sys.stderr)
        return 1


def _extent(curves: dict[str, Curve]) -> str:
    steps = sorted({step for curve in curves.values() for step in curve})
    return f"{', '.join(list(curves)[:3])}, ... at steps {', '.join(map(str, steps[:5]))}, ..." if steps else "nothing"


if __name__ == "__main__":
    sys.exit(main())
