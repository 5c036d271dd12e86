"""All benchmarks one after the other, and one table of their figures: text, JSON and a picture.

python benchmarks/run.py [--output_dir runs/bench] [--parts step corpus ...] [--quick] [--peers_python PYTHON]
    [--glue DIR --init MODEL] [--wikitext FILE]

A part is a script of this folder with its defaults; its own table is printed and kept in the output directory, beside
its numbers. A figure is a ratio of medians inside one part, or a time, beside the goal that it is held against and the
floor that physics gives. `--quick` takes tiny models, to see that everything runs; its figures mean nothing. A part
whose packages are missing is left out with its reason. `--peers_python` names an interpreter with PyTorch,
`transformers` and KerasHub (extra `bench`); finetuning needs GLUE's files and a checkpoint.
"""

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sides import machine, machine_line

HERE = Path(__file__).parent
Found = Any
"""What a part has written as JSON."""


@dataclasses.dataclass
class Figure:
    """A row of the table."""

    part: str
    name: str
    value: float
    goal: float | None = None
    less_is_better: bool = True
    unit: str = "x"
    floor: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the goal is reached."""
        if self.goal is None:
            return ""
        return "reached" if (self.value <= self.goal if self.less_is_better else self.value >= self.goal) else "missed"

    def cells(self) -> tuple[str, ...]:
        """As the table shows them."""
        sign = "at most" if self.less_is_better else "at least"
        goal = "" if self.goal is None else f"{sign} {self.goal:g} {self.unit}"
        floor = "" if self.floor is None else f"{self.floor:.3g} {self.unit}"
        return self.part, self.name, f"{self.value:.3g} {self.unit}", goal, self.verdict, floor


def _step(found: Found) -> Iterator[Figure]:
    for row in found["rows"]:
        name = f"{row['precision']} {row['shape']}"
        yield Figure("step", f"{name}: of tf-models' time", row["tf_bert"] / row["tf_models"], 0.9)
        yield Figure("step", f"{name}: a step", row["tf_bert"], unit="s", floor=row["floor"])
        if "bare" in row:
            yield Figure("step", f"{name}: accumulation, of bare passes", row["accumulated"] / row["bare"], 1.02)


def _corpus(found: Found) -> Iterator[Figure]:
    for row in found["rows"]:
        name = f"{row['corpus']} {row['precision']}"
        goals = {"tf_models": 1.6 if row["corpus"].endswith(".tokens") else 1.3, "transformers": 1.5}
        for peer in filter(row.__contains__, goals):
            yield Figure("corpus", f"{name}: tokens/s, of {peer}", row["tf_bert"] / row[peer], goals[peer], False)
        yield Figure("corpus", f"{name}: pipeline, of the step's", row["pipeline"] / row["tf_bert"], 20, False)


def _memory(found: Found) -> Iterator[Figure]:
    for row in found["rows"]:
        name = f"{row['precision']} {row['shape']}"
        ours, saving, theirs = row["tf_bert"], row["checkpointing"], row["tf_models"]
        floor = row["floor"] / theirs["bytes"]
        yield Figure("memory", f"{name}: of tf-models'", ours["bytes"] / theirs["bytes"], 0.9, floor=floor)
        yield Figure("memory", f"{name}: checkpointing", saving["bytes"] / theirs["bytes"], 0.6, floor=floor)
        yield Figure("memory", f"{name}: checkpointing's time", saving["seconds"] / ours["seconds"], 1.35)


def _start(found: Found) -> Iterator[Figure]:
    (row,) = found["rows"]
    floor = row["libraries"] + row["a later step"]
    yield Figure("start", "first step after the start of the process", row["first step"], 15, unit="s", floor=floor)


def _checkpoint(found: Found) -> Iterator[Figure]:
    (row,) = found["rows"]
    yield Figure("checkpoint", "training held up by a save", row["held"], unit="s", floor=row["floor"])
    yield Figure("checkpoint", "a save to its end", row["written"], unit="s")
    yield Figure("checkpoint", "a step beside it", row["step beside it"] / row["quiet step"])


def _scaling(found: Found) -> Iterator[Figure]:
    for row in found["rows"]:
        if row["precision"] == "float32":
            yield Figure("scaling", f"{row['ranks']:,} ranks, most microbatches", row["efficiency"][-1], None, False)


def _ranks(found: Found) -> Iterator[Figure]:
    for row in found:
        yield Figure("ranks", f"x {row['microsteps']}: lost between two ranks", row["lost"])


def _prepare(found: Found) -> Iterator[Figure]:
    yield Figure("prepare", "text to records, of tf-models'", found["ratio"], None, False)


def _finetune(found: Found) -> Iterator[Figure]:
    for row in found:
        if row["side"] == "tf_bert x 4":
            yield Figure("finetune", f"{row['task']}: four microbatches, of one", row["tf_bert_over_it"], 1.05)
        elif row["side"] != "tf_bert":
            goal = 3 if row["task"] == "SST-2" else 2
            name = f"{row['task']}: examples/s, of {row['side']}"
            yield Figure("finetune", name, row["tf_bert_over_it"], goal, False)


def _serve(found: Found) -> Iterator[Figure]:
    for row in found[1:]:
        side = row["side"]
        yield Figure("serve", f"p50 of {side}, of ours", row["p50_over_ours"], 3 if side == "padded" else None, False)
        goal = 2 if side.startswith("transformers") else None
        yield Figure("serve", f"answers/s, of {side}", row["ours_over_throughput"], goal, False)


def _gpu(found: Found) -> Iterator[Figure]:
    rows = {row["side"]: row for row in found["rows"]}
    peer = rows.pop("torch", None)
    for side, row in rows.items():
        yield Figure("gpu", f"{side}: a step, of the peak", row["of_peak"]["step"], 0.5, False)
        if peer:
            yield Figure("gpu", f"{side}: tokens/s, of compiled PyTorch", peer["step"] / row["step"], 1, False)


@dataclasses.dataclass
class Part:
    """A script, how its numbers become figures, and the words that make it short."""

    figures: Callable[[Found], Iterator[Figure]]
    quick: str


PARTS = {
    "step": Part(_step, "--size tiny --repeats 1"),
    "corpus": Part(_corpus, "--size tiny --repeats 1 --steps 1"),
    "memory": Part(_memory, "--size tiny --repeats 1 --shapes 2x128 --precisions float32"),
    "start": Part(_start, "--size tiny --repeats 1"),
    "checkpoint": Part(_checkpoint, "--size tiny --repeats 1"),
    "scaling": Part(_scaling, "--size tiny"),
    "ranks": Part(_ranks, "--steps 2 --repeats 1"),
    "prepare": Part(_prepare, "--repeats 1 --copies 1"),
    "finetune": Part(_finetune, "--repeats 1 --steps 6 --warm_up 2 --tasks MRPC"),
    "serve": Part(_serve, "--repeats 1 --requests 10 --seconds 1"),
    "gpu": Part(_gpu, "--size tiny --shape 2x128 --repeats 1"),
}


def words_of(name: str, options: argparse.Namespace) -> list[str]:
    """The arguments of a part."""
    words = PARTS[name].quick.split() if options.quick else []
    if options.peers_python and name in ("corpus", "finetune", "serve", "gpu"):
        words += ["--peers_python", options.peers_python]
    if options.peers_python and name == "finetune":
        words += ["--keras_hub_python", options.peers_python]
    if name == "finetune":
        words = ["speed", "--data", options.glue, "--init", options.init, *words]
    if name == "gpu":
        words.append("--mask")  # packed rows need one
    if name == "corpus" and options.wikitext:
        words += ["--text", options.wikitext]
    return words


def measure(name: str, options: argparse.Namespace, directory: Path) -> list[Figure]:
    """Runs a part; none if it cannot run here."""
    if name == "finetune" and not (options.glue and options.init):
        print(f"{name}: is left out: it needs --glue and --init")
        return []
    if name == "gpu" and not options.quick and not shutil.which("nvidia-smi"):
        print(f"{name}: is left out: no GPU")
        return []
    numbers = directory / f"{name}.json"
    words = [sys.executable, str(HERE / f"{name}.py"), *words_of(name, options), "--json", str(numbers)]
    with open(directory / f"{name}.err", "w+") as errors:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=errors, text=True)
        errors.seek(0)
        last = ([line for line in errors if line.strip()] or ["failed"])[-1].strip()
    if done.returncode:
        print(f"{name}: is left out: {last}")
        return []
    (directory / f"{name}.txt").write_text(done.stdout)
    print(f"== {name}\n{done.stdout}", flush=True)
    return list(PARTS[name].figures(json.loads(numbers.read_text())))


def table(figures: list[Figure]) -> str:
    """In Markdown."""
    header = ("part", "figure", "measured", "goal", "", "floor")
    rows = [header, tuple("---" for _ in header), *(figure.cells() for figure in figures)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw(figures: list[Figure], path: Path) -> None:
    """Bars of what is held against a goal, as shares of it: right of the line is better."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    held = [figure for figure in figures if figure.goal is not None][::-1]
    shares = [f.goal / f.value if f.less_is_better else f.value / f.goal for f in held]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.28 * len(held)), layout="constrained")
    bars = axes.barh(
        [f"{f.part}: {f.name}" for f in held], shares, color=["tab:green" if s >= 1 else "tab:orange" for s in shares]
    )
    axes.bar_label(bars, [f"{f.value:.3g} {f.unit}" for f in held], padding=3, fontsize=8)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlim(0, 1.15 * max(shares))
    axes.set_xlabel("of the goal (line: reached)")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Parses, runs, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/bench"))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers_python")
    parser.add_argument("--glue", help="a directory of GLUE's tasks")
    parser.add_argument("--init", help="a checkpoint to finetune")
    parser.add_argument("--wikitext", help="a file of WikiText, in the place of the dump excerpt")
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    figures = [figure for name in options.parts for figure in measure(name, options, options.output_dir)]
    if not figures:
        sys.exit("no part could run")
    page = f"{machine_line()}\n\n{table(figures)}\n"
    print(page)
    (options.output_dir / "bench.md").write_text(page)
    rows = [{**dataclasses.asdict(figure), "verdict": figure.verdict} for figure in figures]
    (options.output_dir / "bench.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    if any(figure.goal is not None for figure in figures):
        draw(figures, options.output_dir / "bench.png")
    print(f"\nbench.md, bench.json and, where there are goals, bench.png are in {options.output_dir}")


if __name__ == "__main__":
    main()
