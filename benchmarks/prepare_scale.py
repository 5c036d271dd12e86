"""How `tf-bert prepare` scales: two workers against one, and memory on ten times the text.

python benchmarks/prepare_scale.py [--megabytes 100] [--repeats 3] [--json FILE]

The text is made of the sentences of the real dump excerpt, drawn anew for every document, one a line. Whole commands
are timed, as a user runs them: one and two workers take turns. Then ten times the text is prepared once. Twice a second
one looks at the memory of every process that does the work: what it has resident, and what is its own (pages that it
has written and shares with no other process).
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tf_bert.config import CorpusConfig, VocabTrainConfig
from tf_bert.corpus.reader import read_documents
from tf_bert.corpus.sentences import SentenceSplitter
from tf_bert.tokenization.vocab import train_vocabulary

EXCERPT = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
LENGTH = 512


def write_text(path: Path, sentences: list[str], megabytes: float, seed: int) -> None:
    """Documents of 5 to 150 sentences drawn at random, a blank line between them."""
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            for _ in range(100):
                file.write("\n".join(rng.choices(sentences, k=rng.randint(5, 150))) + "\n\n")


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
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        # With one worker that is the command itself, with more its descendants.
        for pid in family(process.pid)[0 if workers == 1 else 1 :]:
            memory = memory_of(pid)
            usage.resident = max(usage.resident, memory.get("Rss", 0.0))
            usage.private = max(usage.private, memory.get("Private_Dirty", 0.0))
        time.sleep(0.5)
    usage.seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return usage


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in family(int(child)))]


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
    dump = Path(find_spec("gensim").origin).parent / "test" / "test_data" / EXCERPT
    documents = [document.text for document in read_documents(CorpusConfig(input=str(dump)))]
    split = SentenceSplitter(CorpusConfig(input="unused")).split
    sentences = [sentence for text in documents for sentence in split(text)]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        vocab, small, large = root / "vocab.txt", root / "small.txt", root / "large.txt"
        train_vocabulary(lambda: documents, VocabTrainConfig(input="unused", vocab_size=8000)).save(vocab)
        write_text(small, sentences, options.megabytes, seed=1)
        write_text(large, sentences, 10 * options.megabytes, seed=2)
        runs: dict[int, list[Usage]] = {1: [], 2: []}
        for repeat in range(options.repeats):
            for workers, usages in runs.items():
                usages.append(prepare(small, vocab, workers, root / f"data-{workers}-{repeat}"))
        tenfold = prepare(large, vocab, 2, root / "data-large")

    seconds = {workers: statistics.median(usage.seconds for usage in usages) for workers, usages in runs.items()}
    memory = {workers: max(usages, key=lambda usage: usage.private) for workers, usages in runs.items()}
    rows = [(f"{options.megabytes:g} MB", workers, seconds[workers], memory[workers]) for workers in runs]
    rows.append((f"{10 * options.megabytes:g} MB", 2, tenfold.seconds, tenfold))
    print(f"{platform.machine()}, {os.cpu_count()} cores; length {LENGTH}, medians of {options.repeats} runs\n")
    print("| text | workers | seconds | largest worker, MB resident | MB of its own |\n|---|---|---|---|---|")
    for text, workers, taken, usage in rows:
        print(f"| {text} | {workers} | {taken:.1f} | {usage.resident:.0f} | {usage.private:.0f} |")
    print(f"\ntwo workers over one: {seconds[1] / seconds[2]:.2f}")
    print(
        f"memory on ten times the text: {tenfold.resident / memory[2].resident:.2f} of what is resident, "
        f"{tenfold.private / memory[2].private:.2f} of what is a process's own"
    )
    if options.json:
        table = [{"text": t, "workers": w, "seconds": s, **vars(u)} for t, w, s, u in rows]
        options.json.write_text(json.dumps(table))


if __name__ == "__main__":
    main()
