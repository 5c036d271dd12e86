"""The demo's pipeline on the real dump excerpt, shortened: it must learn from context, not only count tokens."""

import subprocess
import sys
from pathlib import Path

import pytest

from tf_bert.pretraining_data.manifest import read_manifest
from tf_bert.run_log import read_metrics


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_learns_more_than_unigrams(wikipedia_dump, tmp_path):
    def run(*words):
        done = subprocess.run(
            [sys.executable, "-m", "tf_bert.cli", *words], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    corpus = ["--input", str(wikipedia_dump)]
    run("vocab", "train", *corpus, "--vocab_size", "4000", "--output", "vocab.txt")
    build = ["--max_seq_length", "64", "--validation_fraction", "0.05", "--output_dir", "data"]
    run("prepare", *corpus, "--vocab", "vocab.txt", *build)
    config = Path(__file__).parent.parent / "configs" / "bert-tiny-demo.yaml"
    changes = {"data.data_dir": "data", "output_dir": "run", "training.num_train_steps": "2000"}
    run("pretrain", "--config", str(config), *(word for key, value in changes.items() for word in (f"--{key}", value)))

    unigrams = read_manifest(tmp_path / "data").validation_unigram_loss
    losses = {
        entry["step"]: entry["validation/masked_lm_loss"]
        for entry in read_metrics(tmp_path / "run" / "metrics.jsonl")
        if "validation/masked_lm_loss" in entry
    }
    # An untrained model is no better than an even guess over 4,000 tokens, 8.29 nats.
    assert losses[0] > 8.2
    assert losses[2000] <= unigrams - 0.5
    guesses = [line.split() for line in run("fill-mask", "run/model", "he was born in the united [MASK].").splitlines()]
    assert len(guesses) == 5 and 0.0 < sum(float(share.rstrip("%")) for share, _ in guesses) <= 100.0
