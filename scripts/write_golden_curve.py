"""Trains the golden run and keeps its loss curve, with every digit, in tests/golden; a test trains it again.

python scripts/write_golden_curve.py [--vocabulary]

A change that is meant to change what is learnt (data format, initial weights, masks) writes the curve anew: look at
what changed with scripts/compare_runs.py before you commit it. --vocabulary trains the vocabulary anew as well.
"""

import argparse
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tf_bert.cli import main as tf_bert
from tf_bert.run_log import METRICS_FILE, read_metrics

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
VOCABULARY = GOLDEN / "vocab.txt"
CURVE = GOLDEN / "metrics.jsonl"
DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


def dump() -> Path:
    """The real English Wikipedia dump excerpt that gensim ships: 106 articles."""
    spec = find_spec("gensim")
    assert spec and spec.origin, "gensim, which ships the dump excerpt, is not installed"
    return Path(spec.origin).parent / "test" / "test_data" / DUMP


def train(directory: Path) -> list[dict[str, float]]:
    """Prepares the data and trains in `directory`; returns the curve without what depends on the machine's speed."""
    data, run = directory / "data", directory / "run"
    prepare = ["--config", GOLDEN / "prepare.yaml", "--input", dump(), "--vocab", VOCABULARY, "--output_dir", data]
    _run("prepare", *prepare)
    _run("pretrain", "--config", GOLDEN / "pretrain.yaml", "--data.data_dir", data, "--output_dir", run)
    return curve(run / METRICS_FILE)


def curve(path: Path) -> list[dict[str, float]]:
    """The entries of a metrics.jsonl that hold losses, without times and speeds."""
    fast = ("per_second", "utilisation")
    entries = [
        {name: value for name, value in entry.items() if not name.endswith(fast) and not name.startswith("time/")}
        for entry in read_metrics(path)
    ]
    return [entry for entry in entries if len(entry) > 1]


def _run(*words: object) -> None:
    code = tf_bert([str(word) for word in words])
    assert code == 0, f"tf-bert {words[0]} ended with {code}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Trains the golden run and keeps its loss curve.")
    parser.add_argument("--vocabulary", action="store_true", help="train the vocabulary anew as well")
    if parser.parse_args().vocabulary:
        _run("vocab", "train", "--input", dump(), "--vocab_size", 2000, "--output", VOCABULARY)
    with tempfile.TemporaryDirectory() as directory:
        entries = train(Path(directory))
    CURVE.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    print(f"{CURVE}: {len(entries)} entries")
