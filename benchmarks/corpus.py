"""Real tokens a second of pretraining from a real corpus: ours, tf-models from its own data, `transformers`.

python benchmarks/corpus.py [--text FILE ...] [--size base] [--length 512] [--rows 2] [--precisions float32
    mixed_bfloat16] [--steps 4] [--repeats 5] [--peers_python PYTHON] [--json FILE]

Padding is not counted. Every side prepares the corpus its own way: rows that are packed (ours), examples that are
padded to the length (tf-models' `create_pretraining_data`), blocks that are full (`transformers`' `run_mlm.py`, which
has no next-sentence prediction). The corpus is the real dump excerpt; or text files, whose documents are separated by
blank lines, and files of WikiText (`*.tokens`). Sides take turns of so many updates, each from batches of its own input
pipeline; the table has medians over the turns. `--peers_python` names an interpreter with PyTorch and `transformers`;
without it they are left out.

"pipeline" is our input pipeline alone, with nothing that waits for it.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from inputs import EXCERPT, peer_records, read_texts, write_inputs
from sides import WARM_UP, TfModels, machine, machine_line, our_trainer
from turns import Side

from tf_bert.config import BertConfig, DataConfig, PrepareConfig
from tf_bert.config.settings import MODEL_SIZES
from tf_bert.pretraining_data.build import build
from tf_bert.pretraining_data.dataset import training_dataset
from tf_bert.training.train_step import count_tokens

PEERS = Path(__file__).with_name("pretrain_peers.py")
PIPELINE_TOKENS = 2_000_000
Turn = Callable[[], tuple[float, float]]
"""One update; its real tokens and its seconds."""


class Corpus:
    """A corpus in the forms that the sides read."""

    def __init__(self, name: str, source: Path, directory: Path, length: int) -> None:
        self.name, self.length = name, length
        self.predictions = round(0.15 * length)
        self.data_dir, self.records = directory / "data", directory / "peer.tfrecord"
        text, vocab = write_inputs(read_texts(source), directory)
        manifest = build(
            PrepareConfig(
                input=str(text),
                output_dir=str(self.data_dir),
                vocab=str(vocab),
                max_seq_length=length,
                validation_fraction=0.0,
                sentence_splitter="line",
            )
        )
        self.fill = manifest.splits["train"].fill
        self.peer_fill = peer_records(text, vocab, self.records, length, self.predictions)

    def rows(self, rows: int) -> Iterator[dict[str, tf.Tensor]]:
        """Batches of ours, [1, rows, ...]."""
        found = training_dataset(
            self.data_dir,
            DataConfig(data_dir=str(self.data_dir)),
            seed=0,
            global_batch_size=rows,
            microbatch_size=rows,
            accumulation_steps=1,
            rank=0,
            world_size=1,
            first_step=0,
        )
        return iter(found.dataset)

    def peer_rows(self, rows: int, task: Any) -> Iterator[dict[str, tf.Tensor]]:
        """Batches of tf-models' loader."""
        from official.nlp.data.pretrain_dataloader import BertPretrainDataConfig

        config = BertPretrainDataConfig(
            input_path=str(self.records),
            global_batch_size=rows,
            seq_length=self.length,
            max_predictions_per_seq=self.predictions,
        )
        return iter(task.build_inputs(config))

    def pipeline_rate(self, rows: int) -> float:
        """Real tokens a second that our pipeline makes."""
        batches, tokens = self.rows(rows), 0.0
        next(batches)
        began = time.perf_counter()
        while tokens < PIPELINE_TOKENS:
            tokens += float(count_tokens(next(batches)))
        return tokens / (time.perf_counter() - began)


def our_turn(corpus: Corpus, config: BertConfig, precision: str, rows: int) -> Turn:
    """Updates of our train step from our rows."""
    trainer, batches = our_trainer(config, precision), corpus.rows(rows)
    step = tf.function(trainer.train_step)
    seen = 0.0

    def turn() -> tuple[float, float]:
        nonlocal seen
        began, before = time.perf_counter(), seen
        seen = float(step(next(batches))["tokens_seen"])
        return seen - before, time.perf_counter() - began

    return turn


def peer_turn(corpus: Corpus, config: BertConfig, precision: str, rows: int) -> Turn:
    """Updates of tf-models' from their examples."""
    peer = TfModels(config, precision)
    batches = corpus.peer_rows(rows, peer.task)

    def turn() -> tuple[float, float]:
        began = time.perf_counter()
        batch = next(batches)
        tokens = float(tf.reduce_sum(batch["input_mask"]))
        peer.train(batch)
        return tokens, time.perf_counter() - began

    return turn


def transformers_side(python: str, config: BertConfig, precision: str, rows: int, length: int) -> Side:
    """`transformers`, in a process of its own."""
    settings = {"config": dataclasses.asdict(config), "rows": rows, "length": length, "precision": precision}
    side = Side([python, str(PEERS), json.dumps(settings)])
    print(f"transformers: {side.opening}")
    return side


def rates(turns: dict[str, Turn], steps: int, repeats: int) -> dict[str, float]:
    """Median real tokens a second of each side over its turns of `steps` updates."""
    for turn in turns.values():
        for _ in range(WARM_UP):
            turn()
    found: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(repeats):
        for name, turn in turns.items():
            tokens, seconds = map(sum, zip(*(turn() for _ in range(steps)), strict=True))
            found[name].append(tokens / seconds)
    return {name: statistics.median(values) for name, values in found.items()}


def measure(corpus: Corpus, config: BertConfig, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """The sides' rates, and a line for each."""
    turns = {
        "tf_bert": our_turn(corpus, config, precision, options.rows),
        "tf_models": peer_turn(corpus, config, precision, options.rows),
    }
    if options.peers_python:
        side = transformers_side(options.peers_python, config, precision, options.rows, corpus.length)
        turns["transformers"] = lambda: (float(options.rows * corpus.length), side.ask("step"))
    found = rates(turns, options.steps, options.repeats)
    if options.peers_python:
        side.close()
    for name, rate in found.items():
        print(
            f"{corpus.name:<20} {precision:<15} {name:<13} {rate:>7.1f} tokens/s   tf_bert is "
            f"{found['tf_bert'] / rate:.2f} x it",
            flush=True,
        )
    pipeline = corpus.pipeline_rate(options.rows)
    print(
        f"{corpus.name:<20} {precision:<15} {'pipeline':<13} {pipeline:>7.0f} tokens/s   "
        f"{pipeline / found['tf_bert']:.0f} x what the step takes",
        flush=True,
    )
    return {"corpus": corpus.name, "precision": precision, **found, "pipeline": pipeline}


def main() -> None:
    """Parses, prepares, measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="*", type=Path, help="text files, each a corpus (default: the dump excerpt)")
    parser.add_argument("--size", default="base", choices=MODEL_SIZES)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rows", type=int, default=2, help="of a batch")
    parser.add_argument("--precisions", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--steps", type=int, default=4, help="updates of a turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--peers_python", help="an interpreter with PyTorch and transformers")
    parser.add_argument("--json", help="where to write all numbers")
    options = parser.parse_args()
    config = BertConfig(**MODEL_SIZES[options.size])
    print(f"{machine_line()}; bert-{options.size}, {options.rows} x {options.length}")
    results = []
    names = {EXCERPT: "dump excerpt"}
    for source in options.text or [EXCERPT]:
        with tempfile.TemporaryDirectory() as directory:
            corpus = Corpus(names.get(source, source.name), source, Path(directory), options.length)
            print(
                f"{corpus.name}: no padding are {corpus.fill:.1%} of our tokens, {corpus.peer_fill:.1%} of tf-models'"
            )
            for precision in options.precisions:
                row = measure(corpus, config, precision, options)
                results.append({**row, "fill": corpus.fill, "peer_fill": corpus.peer_fill})
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine(), "rows": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
