"""`tf-bert inspect`: what is inside a shard, a data directory, a checkpoint, a run or a model directory."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from safetensors import SafetensorError, safe_open

from tf_bert.config import DataConfig, load_bert_config
from tf_bert.errors import InputError
from tf_bert.files import read_json
from tf_bert.models.directory import CONFIG_FILE, LINEAGE_FILE, WEIGHTS_FILE
from tf_bert.pretraining_data.dataset import batch_maker
from tf_bert.pretraining_data.manifest import LENGTH_BINS, MANIFEST_FILE, Lengths, read_manifest
from tf_bert.pretraining_data.manifest_plot import draw_manifest
from tf_bert.run_log import METRICS_FILE, read_metrics
from tf_bert.tokenization.tokenizer import load_tokenizer
from tf_bert.training.checkpoint import TENSORS_FILE, read_checkpoint

SKIPPED_SHOWN = 5
BAR_WIDTH = 24  # characters of the longest bar of a histogram


def draw_data_directory(path: str, picture: str) -> str:
    """Draws the stages and lengths of a data directory as a PNG; returns what to tell the user.

    Raises:
      InputError: if `path` is not a data directory, or the picture cannot be written.
    """
    return draw_manifest(read_manifest(Path(path)), Path(picture))


def inspect(path: str, rows: int = 3) -> str:
    """A description of what `path` holds, for a terminal.

    Args:
      path: a `.tfrecord` shard inside a data directory, a directory that a tf-bert command wrote, or the manifest,
        weights or metrics in one.
      rows: how many rows of a shard to show.

    Raises:
      InputError: if there is nothing, nothing known, or something damaged under `path`.
    """
    place = Path(path)
    if not place.exists():
        raise InputError(f"{path}: no such file or directory")
    # A checkpoint has a manifest too, so what tells it from a data directory is looked for first.
    known = {
        TENSORS_FILE: _checkpoint,
        WEIGHTS_FILE: _model_directory,
        METRICS_FILE: _run,
        MANIFEST_FILE: _data_directory,
    }
    if place.name in known:
        place = place.parent
    elif place.is_file():
        return "\n".join(_shard(place, rows))
    for marker, describe in known.items():
        if (place / marker).exists():
            return "\n".join(describe(place))
    raise InputError(
        f"{path}: found none of {TENSORS_FILE}, {WEIGHTS_FILE}, {METRICS_FILE} and {MANIFEST_FILE}; expected a "
        "checkpoint, a model directory, a run or a data directory"
    )


def _data_directory(path: Path) -> Iterator[str]:
    manifest = read_manifest(path)
    vocabulary = manifest.vocabulary
    case = "uncased" if vocabulary.lower_case else "cased"
    yield f"data directory {path}: {manifest.row_format} rows of {manifest.max_seq_length} tokens, seed {manifest.seed}"
    yield f"  vocabulary  {vocabulary.size:,} tokens, {case}, sha256 {vocabulary.sha256[:12]}"
    for source in manifest.sources:
        yield f"  source      {source.path}, {source.bytes:,} bytes, sha256 {source.sha256[:12]}"
    for source in manifest.excluded:
        yield f"  excluded    n-grams of {source.path}, {source.bytes:,} bytes, sha256 {source.sha256[:12]}"
    read = {"pages": manifest.pages, "articles": manifest.articles, "documents": manifest.documents}
    yield from _stages("read", read)
    yield from _stages("left out", manifest.dropped)
    yield from _stages("passed over", {"that could not be read": len(manifest.skipped)})
    yield from (f"  {'':<24}  {problem}" for problem in manifest.skipped[:SKIPPED_SHOWN])
    for name, split in manifest.splits.items():
        counts = split.counts
        yield (
            f"  {name:<11} {counts.documents:,} documents > {counts.sentences:,} sentences > "
            f"{counts.tokens:,} tokens > "
            f"{counts.examples:,} examples > {counts.rows:,} rows in {len(split.shards)} shards, fill {split.fill:.1%}"
        )
        if counts.examples and manifest.next_sentence:
            yield f"  {'':<11} random next sentences: {counts.random_next / counts.examples:.1%}"
    if manifest.validation_unigram_loss is not None:
        yield f"  unigrams    {manifest.validation_unigram_loss:.4f} nats a validation token"
    yield from (
        "  " + f"{shard.name}  {shard.records:,} rows  {shard.bytes:,} bytes  crc32 {shard.crc32}"
        for split in manifest.splits.values()
        for shard in split.shards[:3]
    )
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    yield f"  built with  {versions}"
    for name, split in manifest.splits.items():
        if split.records:
            yield f"  {name}: tokens of its examples and rows, and how many are of that length"
            yield from _length_table(split.lengths, manifest.max_seq_length)


def _stages(label: str, counts: Mapping[str, int]) -> Iterator[str]:
    for name, count in counts.items():
        if count:
            yield f"  {label:<11} {count:>12,}  {name}"
            label = ""


def _length_table(lengths: Lengths, longest: int) -> Iterator[str]:
    """Two histograms side by side, a line for each bin that is not empty in both."""
    columns = (lengths.examples, lengths.rows)
    for i, counts in enumerate(zip(*columns, strict=True)):
        if any(counts):
            cells = (
                f"{count:>12,} {'#' * math.ceil(BAR_WIDTH * count / max(column)):<{BAR_WIDTH}}"
                for count, column in zip(counts, columns, strict=True)
            )
            first, last = (math.ceil((i + more) * longest / LENGTH_BINS) + 1 - more for more in (0, 1))
            yield f"  {first:>5}-{last:<5}{''.join(cells)}".rstrip()


def _shard(path: Path, rows: int) -> Iterator[str]:
    """Decoded rows; packed ones with masks as one draw gives them."""
    manifest = read_manifest(path.parent)
    tokenizer = load_tokenizer(path.parent)
    vocabulary = tokenizer.vocabulary
    try:
        serialized = list(itertools.islice(tf.data.TFRecordDataset(str(path)).as_numpy_iterator(), rows))
        make_batch = batch_maker(path.parent, manifest, DataConfig(), manifest.seed)
        masked = make_batch(tf.constant(serialized, tf.string), tf.range(len(serialized), dtype=tf.int64))
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise InputError(f"{path}: is not a shard of {path.parent}, or is damaged: {error.message}") from error
    yield f"shard {path}: the first {len(serialized)} rows; masked tokens as {{shown to the model|right answer}}"
    values = {name: np.asarray(value) for name, value in masked.items()}
    for row in range(len(serialized)):
        tokens = [vocabulary.tokens[token] for token in values["input_ids"][row]]
        weights = values["masked_lm_weights"][row] > 0
        for position, answer in zip(
            values["masked_lm_positions"][row][weights], values["masked_lm_ids"][row][weights], strict=True
        ):
            tokens[position] = f"{{{tokens[position]}|{vocabulary.tokens[answer]}}}"
        example_ids = values["example_ids"][row]
        yield f"row {row}: {np.count_nonzero(example_ids)} tokens, {example_ids.max()} examples"
        for example in range(1, example_ids.max() + 1):
            inside = np.flatnonzero(example_ids == example)
            kind = "single"
            if manifest.next_sentence:
                kind = "random" if values["next_sentence_labels"][row, example - 1] else "next  "
            yield f"  {kind}  {' '.join(tokens[i] for i in inside)}"


def _checkpoint(path: Path) -> Iterator[str]:
    checkpoint = read_checkpoint(path)
    yield f"checkpoint {path}: step {checkpoint.step:,}, sound"
    yield from _tensors(path / TENSORS_FILE)
    yield f"  state  {json.dumps(checkpoint.state)}"


def _model_directory(path: Path) -> Iterator[str]:
    config = load_bert_config(path / CONFIG_FILE)
    tokenizer = load_tokenizer(path)
    yield (
        f"model directory {path}: BERT, {config.num_hidden_layers} layers of {config.hidden_size}, "
        f"{config.num_attention_heads} heads, up to {config.max_position_embeddings} tokens"
    )
    case = "uncased" if tokenizer.lower_case else "cased"
    yield f"  vocabulary  {len(tokenizer.vocabulary):,} tokens, {case}, sha256 {tokenizer.vocabulary.sha256[:12]}"
    yield from _tensors(path / WEIGHTS_FILE)
    if (path / LINEAGE_FILE).exists():
        yield from _lineage(read_json(path / LINEAGE_FILE))


def _lineage(lineage: Mapping[str, Any]) -> Iterator[str]:
    """What the weights come from, the newest first."""
    if "finetuning" in lineage:
        yield f"  finetuned   on {lineage['finetuning']['task']}, {lineage['finetuning']['step']:,} steps"
    if "data" in lineage:
        for source in lineage["data"]["sources"]:
            yield f"  trained on  {source['path']}, sha256 {source['sha256'][:12]}"
        yield f"  steps       {lineage['pretraining']['training']['num_train_steps']:,}"
    for key, what in {"init": "started from", "converted_from": "converted from"}.items():
        if key in lineage:
            yield f"  {what}  {lineage[key]['source']} ({lineage[key]['kind']})"
            yield from _lineage(lineage[key]["lineage"])


def _tensors(path: Path) -> Iterator[str]:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            numbers = sum(int(np.prod(piece.get_shape())) for piece in slices.values())
            yield f"  {path.name}: {len(slices)} tensors, {numbers:,} numbers"
            yield from (f"    {name}  {piece.get_dtype()} {piece.get_shape()}" for name, piece in slices.items())
    except SafetensorError as error:
        raise InputError(f"{path}: is damaged ({error})") from error


def _run(path: Path) -> Iterator[str]:
    entries = read_metrics(path / METRICS_FILE)
    yield f"run {path}: {max((entry['step'] for entry in entries), default=0):,} steps logged"
    for group in ("train", "validation"):
        last = next((entry for entry in reversed(entries) if any(key.startswith(group) for key in entry)), None)
        if last:
            values = "  ".join(f"{key.partition('/')[2]} {value:.4g}" for key, value in last.items() if key != "step")
            yield f"  {group} at step {last['step']:,}: {values}"
    yield from (f"  {entry.relative_to(path)}" for entry in sorted(path.glob("checkpoints/*")))
