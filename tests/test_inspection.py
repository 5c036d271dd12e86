"""`tf-bert inspect` and `tf-bert fill-mask`, as a user calls them."""

import itertools
import re
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from batches import TINY

from tf_bert.cli import main
from tf_bert.config import PrepareConfig
from tf_bert.errors import InputError
from tf_bert.inspection import inspect
from tf_bert.models.directory import save_model
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.pretraining_data.build import build
from tf_bert.pretraining_data.dataset import read_shard
from tf_bert.pretraining_data.manifest import read_manifest
from tf_bert.pretraining_data.schema import parse_row
from tf_bert.tokenization.tokenizer import load_tokenizer, save_tokenizer
from tf_bert.tokenization.vocab import SPECIAL_TOKENS, Vocabulary
from tf_bert.training.checkpoint import CheckpointManager


def test_a_shard_is_shown_decoded_with_its_masks(data_dir):
    manifest = read_manifest(data_dir)
    shard = manifest.splits["train"].shards[0]
    head, *lines = inspect(str(data_dir / shard.name), rows=2).splitlines()
    assert head.endswith("the first 2 rows; masked tokens as {shown to the model|right answer}")
    tokens = load_tokenizer(data_dir).vocabulary.tokens
    shown = [[]]
    for line in lines:
        if line.startswith("row "):
            shown.append([])
        else:
            shown[-1] += line[10:].split(" ")
    for words, stored in zip(shown[1:], read_shard(data_dir, shard), strict=False):
        row = parse_row(stored)
        original = [re.sub(r"^\{.*\|(.+)\}$", r"\1", word) for word in words]
        assert original == [tokens[token] for token in row["input_ids"]]
        candidates = sum(word not in ("[CLS]", "[SEP]") for word in words)
        assert sum(word != other for word, other in zip(words, original, strict=True)) == round(0.15 * candidates)


def test_lengths_of_examples_and_rows_are_counted_and_drawn(data_dir, tmp_path, capsys):
    picture = tmp_path / "data.png"
    assert main(["inspect", str(data_dir), "--png", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert plt.imread(picture).shape[2] == 4 and str(picture) in shown
    manifest = read_manifest(data_dir)
    for name in ("train", "validation"):
        table = shown.partition(f"  {name}: tokens of")[2].splitlines()[1:]
        rows = [parse_row(row) for shard in manifest.splits[name].shards for row in read_shard(data_dir, shard)]
        for column, lengths in enumerate(
            (np.concatenate([row["example_lengths"] for row in rows]), [len(row["input_ids"]) for row in rows])
        ):
            total = 0
            for line in itertools.takewhile(lambda line: re.match(r"  +\d+-\d+ ", line), table):
                bounds, *cells = re.sub("#", "", line).split()
                first, last = map(int, bounds.split("-"))
                count = int(cells[column].replace(",", ""))
                assert count == sum(first <= length <= last for length in lengths)
                total += count
            assert total == len(lengths)


def test_a_picture_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
    assert main(["inspect", str(tmp_path), "--png", str(tmp_path / "x.png")]) == 1
    assert "expected the manifest that `tf-bert prepare` writes" in capsys.readouterr().err


@pytest.mark.parametrize("next_sentence", [True, False])
def test_original_rows_are_shown_with_the_masks_they_have(data_dir, tmp_path, next_sentence):
    config = PrepareConfig(
        input=str(data_dir.parent / "articles.txt"),
        output_dir=str(tmp_path / "data"),
        vocab=str(data_dir / "vocab.txt"),
        max_seq_length=32,
        validation_fraction=0.2,
        row_format="original",
        dupe_factor=1,
        next_sentence=next_sentence,
    )
    manifest = build(config)
    shown = inspect(str(tmp_path / "data"))
    assert "original rows of 32 tokens" in shown and ("random next sentences" in shown) == next_sentence
    shard = manifest.splits["train"].shards[0]
    _, *lines = inspect(str(tmp_path / "data" / shard.name), rows=3).splitlines()
    tokens = load_tokenizer(data_dir).vocabulary.tokens
    for line, stored in zip(lines[1::2], read_shard(tmp_path / "data", shard), strict=False):
        features = tf.train.Example.FromString(stored).features.feature
        words = [
            tokens[i] for i in features["input_ids"].int64_list.value[: sum(features["input_mask"].int64_list.value)]
        ]
        for position, answer, weight in zip(
            features["masked_lm_positions"].int64_list.value,
            features["masked_lm_ids"].int64_list.value,
            features["masked_lm_weights"].float_list.value,
            strict=True,
        ):
            if weight:
                words[position] = f"{{{words[position]}|{tokens[answer]}}}"
        kind = "single"
        if next_sentence:
            kind = "random" if features["next_sentence_labels"].int64_list.value[0] else "next  "
        assert line == f"  {kind}  {' '.join(words)}"


def test_a_data_directory_is_shown_as_its_stages(data_dir):
    shown = inspect(str(data_dir))
    counts = read_manifest(data_dir).splits["train"].counts
    assert (
        f"train       {counts.documents:,} documents > {counts.sentences:,} sentences > {counts.tokens:,} tokens > "
        f"{counts.examples:,} examples > {counts.rows:,} rows" in shown
    )
    assert "600 tokens, uncased" in shown and "nats a validation token" in shown
    assert inspect(str(data_dir / "manifest.json")) == shown


def test_a_checkpoint_is_checked_and_shown(tmp_path):
    model = BertForPretraining(TINY)
    manager = CheckpointManager(tmp_path, keep=1)
    path = manager.save(7, model.variables, {"data_position": 7})
    manager.wait()
    shown = inspect(str(path))
    assert shown.startswith(f"checkpoint {path}: step 7, sound")
    assert inspect(str(path / "manifest.json")) == shown
    assert "bert/encoder/pooler/kernel  F32 [32, 32]" in shown and 'state  {"data_position": 7}' in shown
    (path / "tensors.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match=r"tensors.safetensors: found 1 bytes, expected \d+"):
        inspect(str(path))


@pytest.fixture
def model_dir(tmp_path):
    """A model that always guesses "paris", then "rome"."""
    tokens = [*SPECIAL_TOKENS, "is", "a", "city", ".", "paris", "rome", *(f"w{i}" for i in range(86))]
    assert len(tokens) == TINY.vocab_size
    model = BertForPretraining(TINY)
    bias = np.zeros(TINY.vocab_size, "float32")
    bias[tokens.index("paris")], bias[tokens.index("rome")] = 12.0, 11.0
    model.masked_lm.bias.assign(bias)
    save_model(model, tmp_path, {"pad_token_id": 0})
    save_tokenizer(tmp_path, Vocabulary(tuple(tokens)), lower_case=True)
    return tmp_path


def test_a_model_directory_is_shown_with_its_tensors(model_dir):
    shown = inspect(str(model_dir))
    assert "BERT, 2 layers of 32, 4 heads, up to 32 tokens" in shown and "97 tokens, uncased" in shown
    assert "bert.embeddings.word_embeddings.weight  F32 [97, 32]" in shown


def test_masks_are_filled_with_the_models_probabilities(model_dir, capsys):
    assert main(["fill-mask", str(model_dir), "[MASK] is a city. [MASK] [SEP] is a city.", "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["1", "paris", "rome", "2", "paris", "rome"]
    assert lines[0] == "[MASK] 1" and lines[3] == "[MASK] 2"
    model = BertForPretraining(TINY)
    ids = [2, 4, 5, 6, 7, 8, 4, *[1] * 3, 5, 6, 7, 8, 3]  # "[SEP]" in the text is three unknown words
    model.set_weights(_weights_of(model_dir))
    inputs = {"input_ids": np.array([ids], "int32"), "input_mask": np.ones((1, len(ids)), "int32")}
    logits = model(inputs | {"masked_lm_positions": np.array([[1, 6]], "int32")})["masked_lm_logits"][0]
    shown = [float(line.split("%")[0]) for line in lines if "%" in line]
    expected = 100 * tf.nn.softmax(logits).numpy()[:, [9, 10]].ravel()
    np.testing.assert_allclose(shown, expected, atol=0.06)


def _weights_of(model_dir):
    from tf_bert.models.directory import load_model

    return load_model(model_dir).get_weights()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["no mask here"], 2, "the text has no [MASK]; write it where a word is to be guessed"),
        (["[MASK]", "--top", "0"], 2, "--top: found 0, expected 1 or more"),
        (["[MASK]" + " city" * 40], 1, "the text has 43 tokens, the model reads at most 32; shorten it"),
    ],
)
def test_a_text_that_cannot_be_filled_is_one_line(model_dir, capsys, words, code, message):
    assert main(["fill-mask", str(model_dir), *words]) == code
    assert capsys.readouterr().err.startswith(f"tf-bert fill-mask: {message}")


def test_a_vocabulary_larger_than_the_model_is_refused(model_dir, capsys):
    with open(model_dir / "vocab.txt", "a") as file:
        file.write("one\nmore\n")
    assert main(["fill-mask", str(model_dir), "[MASK]"]) == 1
    assert "vocab.txt: holds 99 tokens, more than the model's vocab_size 97" in capsys.readouterr().err


def test_what_is_not_known_is_refused(tmp_path, data_dir):
    with pytest.raises(InputError, match=r"nowhere: no such file or directory"):
        inspect("nowhere")
    with pytest.raises(
        InputError, match=r"found none of tensors.safetensors, model.safetensors, metrics.jsonl and mani"
    ):
        inspect(str(tmp_path))
    copy = tmp_path / "copy"
    shutil.copytree(data_dir, copy)
    (copy / "train.tfrecord").write_bytes(b"no records here, only text that is long enough")
    with pytest.raises(InputError, match=r"train.tfrecord: is not a shard of .*copy, or is damaged"):
        inspect(str(copy / "train.tfrecord"))
