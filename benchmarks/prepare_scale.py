"""How `tf-bert prepare` scales: two workers against one, and memory on ten times the text.

python benchmarks/prepare_scale.py [--megabytes 100] [--repeats 3] [--json FILE]

The text is made of the sentences of the real dump excerpt, drawn anew for every document, one a line. Whole commands
are timed, start-up included: one worker on one core (on two, it would tokenize on both) and two workers on two take
turns, on the text and on ten times as much.
Twice a second one looks at the memory of every process that does the work: what it has resident, and what is its own
(pages that it has written and shares with no other process).
"""

import argparse
import itertools
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from inputs import EXCERPT, read_texts, sentences_of, write_inputs

LENGTH = 512


def write_text(path: Path, sentences: list[str], megabytes: float, seed: int) -> None:
    """Documents of 5 to 150 sentences drawn at random, a blank line between them."""
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            for _ in range(100):
                file.write("\n".join(rng.choices(sentences, k=rng.randint(5, 150))) + "\n\n")


@dataclass
class Row:
    """Of the table: the median time, the largest memory."""

    megabytes: float
    workers: int
    seconds: float
    resident: float
    private: float


@dataclass
class Usage:
    """Of one command; memory in MB, each the largest that any process had that does the work."""

    seconds: float
    resident: float = 0.0
    private: float = 0.0


def prepare(text: Path, vocab: Path, workers: int, output_dir: Path) -> Usage:
    """Runs the command in processes of its own."""
    command = [sys.executable, "-m", "tf_bert.cli", "prepare", "--input", str(text), "--vocab", str(vocab)]
    command += ["--output_dir", str(output_dir), "--max_seq_length", str(LENGTH), "--sentence_splitter", "line"]
    command += ["--workers", str(workers)]
    usage = Usage(0.0)
    start = time.perf_counter()
    cores = sorted(os.sched_getaffinity(0))[:workers]
    process = subprocess.Popen(
        ["taskset", "--cpu-list", ",".join(map(str, cores)), *command], stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        for pid in workers_of(process.pid) if workers > 1 else [process.pid]:
            memory = memory_of(pid)
            usage.resident = max(usage.resident, memory.get("Rss", 0.0))
            usage.private = max(usage.private, memory.get("Private_Dirty", 0.0))
        time.sleep(0.5)
    usage.seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return usage


def workers_of(pid: int) -> list[int]:
    """The children of a process's children: the latter are a server that workers are forked from, and a tracker."""
    return [worker for child in children_of(pid) for worker in children_of(child)]


def children_of(pid: int) -> list[int]:
    """Those of its main thread; none of a process that has just ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def memory_of(pid: int) -> dict[str, float]:
    """Sums over the mappings of a process, MB by name; nothing if it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name: int(value.split()[0]) / 1024 for name, _, value in (line.partition(":") for line in lines)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=100.0, help="text of the smaller corpus (default: 100)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs with one and two workers (default: 3)")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    texts = read_texts(EXCERPT)
    sentences = [sentence for text in texts for sentence in sentences_of(text)]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        _, vocab = write_inputs(texts, root)
        small, large = root / "small.txt", root / "large.txt"
        write_text(small, sentences, options.megabytes, seed=1)
        write_text(large, sentences, 10 * options.megabytes, seed=2)
        runs: dict[tuple[Path, int], list[Usage]] = {}
        for repeat in range(options.repeats):
            for text, workers in itertools.product((small, large), (1, 2)):
                output_dir = root / f"data-{text.stem}-{workers}-{repeat}"
                runs.setdefault((text, workers), []).append(prepare(text, vocab, workers, output_dir))
                shutil.rmtree(output_dir)

    table = []
    for (text, workers), usages in runs.items():
        megabytes = options.megabytes * (10 if text == large else 1)
        resident, private = (max(getattr(usage, name) for usage in usages) for name in ("resident", "private"))
        table.append(Row(megabytes, workers, statistics.median(usage.seconds for usage in usages), resident, private))
    print(f"{platform.machine()}, {os.cpu_count()} cores; length {LENGTH}, medians of {options.repeats} runs\n")
    print("| text | workers and cores | seconds | largest worker, MB resident | MB of its own |\n|---|---|---|---|---|")
    for row in table:
        print(f"| {row.megabytes:g} MB | {row.workers} | {row.seconds:.1f} | {row.resident:.0f} | {row.private:.0f} |")
    small_1, small_2, large_1, large_2 = table
    print(
        f"\ntwo workers over one: {small_1.seconds / small_2.seconds:.2f}, on ten times the text "
        f"{large_1.seconds / large_2.seconds:.2f}"
    )
    print(
        f"memory on ten times the text, one worker: {large_1.resident / small_1.resident:.2f}; two: "
        f"{large_2.resident / small_2.resident:.2f} of what is resident, {large_2.private / small_2.private:.2f} of "
        "what is a process's own"
    )
    if options.json:
        options.json.write_text(json.dumps([vars(row) for row in table]))


if __name__ == "__main__":
    main()
