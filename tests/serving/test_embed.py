"""Sentence embeddings: against numpy, against themselves in other batches, and against sentence-transformers."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import peers
import pytest
from odd_shapes import CHECKPOINT, TEXTS

from tf_bert.config import BertConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.models.directory import save_model
from tf_bert.models.model import BertModel
from tf_bert.serving.embed import EmbeddingOptions, SentenceEncoder, embed_lines
from tf_bert.tokenization.tokenizer import load_tokenizer, save_tokenizer
from tf_bert.tokenization.vocab import Vocabulary

CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=20,
)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "river", "##s", "stone", "Stone", "fell", ".", "ä", "wide")
SENTENCES = ("a river", "", "stone fell . " * 9, "rivers", "a", "wide wide rivers fell .", "a stone .")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small model of ours without sentence-transformers' files, and the model."""
    directory = tmp_path_factory.mktemp("model")
    model = BertModel(CONFIG)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(1.0 if variable.name == "gamma" else 0.0, 0.3, variable.shape))
    save_model(model, directory, {"pad_token_id": 0})
    save_tokenizer(directory, Vocabulary(WORDS), lower_case=False)
    return model, directory


@pytest.fixture
def directory(written, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(written[1], tmp_path / "model")
    return tmp_path / "model"


def embed(directory, texts=SENTENCES, **options):
    return np.array(list(SentenceEncoder(directory, EmbeddingOptions(**options)).embed(texts)))


def reference(model, directory, text, pooling, max_seq_length=20):
    """One text alone, pooled by numpy."""
    ids = load_tokenizer(directory).tokenize([text]).to_list()[0][: max_seq_length - 2]
    row = np.array([[WORDS.index("[CLS]"), *ids, WORDS.index("[SEP]")]], "int32")
    outputs = model({"input_ids": row, "input_mask": np.ones_like(row)})
    tokens = outputs["sequence_output"].numpy()[0]
    return {"mean": tokens.mean(axis=0), "cls": tokens[0], "pooler": outputs["pooled_output"].numpy()[0]}[pooling]


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_vectors_are_what_numpy_pools_from_a_text_alone(written, pooling):
    model, directory = written
    expected = np.array([reference(model, directory, text, pooling) for text in SENTENCES])
    found = embed(directory, pooling=pooling)
    assert found.dtype == np.float32 and found.shape == (len(SENTENCES), CONFIG.hidden_size)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    normalized = embed(directory, pooling=pooling, normalize=True)
    np.testing.assert_allclose(normalized, expected / np.linalg.norm(expected, axis=1)[:, None], rtol=0, atol=1e-6)


def test_the_mean_without_normalisation_is_the_default(written):
    np.testing.assert_array_equal(embed(written[1]), embed(written[1], pooling="mean", normalize=False))


def test_other_texts_in_the_batch_change_nothing():
    together = embed(CHECKPOINT, TEXTS)
    np.testing.assert_allclose(embed(CHECKPOINT, TEXTS, batch_size=1), together, rtol=0, atol=1e-6)
    np.testing.assert_allclose(embed(CHECKPOINT, TEXTS[::-1])[::-1], together, rtol=0, atol=1e-6)


def test_texts_are_read_a_window_at_a_time_and_answered_in_order(written):
    read = 0

    def texts():
        nonlocal read
        for read in range(1, 201):
            yield SENTENCES[(read - 1) % len(SENTENCES)]

    expected = embed(written[1])
    vectors = SentenceEncoder(written[1], EmbeddingOptions(batch_size=2)).embed(texts())
    first = next(vectors)
    assert read == 64
    for number, vector in enumerate([first, *vectors]):
        np.testing.assert_allclose(vector, expected[number % len(SENTENCES)], rtol=0, atol=1e-6)
    assert read == 200 and number == 199


def test_long_texts_are_cut_between_cls_and_sep(written):
    encoder = SentenceEncoder(written[1], EmbeddingOptions(max_seq_length=5))
    cls_id, sep_id = WORDS.index("[CLS]"), WORDS.index("[SEP]")
    stone, fell, stop, a = (WORDS.index(word) for word in ("stone", "fell", ".", "a"))
    assert encoder.token_ids(["stone fell . stone", "a", ""]) == [
        [cls_id, stone, fell, stop, sep_id],
        [cls_id, a, sep_id],
        [cls_id, sep_id],
    ]
    assert len(SentenceEncoder(written[1], EmbeddingOptions()).token_ids(["a " * 50])[0]) == 20


def test_special_tokens_in_a_text_are_text(written):
    encoder = SentenceEncoder(written[1], EmbeddingOptions())
    assert WORDS.index("[SEP]") not in encoder.token_ids(["a [SEP] stone"])[0][1:-1]


# --- sentence-transformers' files ----------------------------------------------------------------------------------

TRANSFORMER = {"idx": 0, "name": "0", "type": "sentence_transformers.models.Transformer", "path": ""}
POOLING = {"idx": 1, "name": "1", "type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
NORMALIZE = {
    "idx": 2,
    "name": "2",
    "type": "sentence_transformers.base.modules.normalize.Normalize",
    "path": "2_Normalize",
}


def write_settings(directory, modules=(TRANSFORMER, POOLING), pooling=None, **files):
    files = {"modules": list(modules), **files}
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {"pooling_mode_mean_tokens": True}))


@pytest.mark.parametrize("pooling", [{"pooling_mode_cls_token": True}, {"pooling_mode": "cls", "include_prompt": True}])
def test_pooling_length_and_normalisation_are_the_directorys(directory, pooling):
    expected = embed(directory, pooling="cls", normalize=True, max_seq_length=6)
    write_settings(directory, (TRANSFORMER, POOLING, NORMALIZE), pooling, sentence_bert_config={"max_seq_length": 6})
    np.testing.assert_array_equal(embed(directory), expected)
    other = embed(directory, pooling="mean", normalize=False, max_seq_length=20)
    (directory / "modules.json").unlink()
    (directory / "sentence_bert_config.json").unlink()
    np.testing.assert_array_equal(other, embed(directory))


def test_the_tokenizers_limit_counts_where_there_is_no_other(directory):
    path = directory / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"model_max_length": 7}))
    assert SentenceEncoder(directory, EmbeddingOptions()).max_seq_length == 7
    path.write_text(json.dumps(settings | {"model_max_length": int(1e30)}))
    assert SentenceEncoder(directory, EmbeddingOptions()).max_seq_length == 20


def test_the_encoder_may_lie_in_a_folder(directory, written):
    inner = directory / "0_Transformer"
    shutil.copytree(written[1], inner)
    for name in ("model.safetensors", "config.json", "vocab.txt", "tokenizer_config.json"):
        (directory / name).unlink()
    write_settings(directory, ({**TRANSFORMER, "path": "0_Transformer"}, POOLING))
    np.testing.assert_array_equal(embed(directory), embed(written[1]))


def test_lower_casing_before_a_cased_tokenizer(directory):
    cased = embed(directory, ["Stone", "stone"])
    assert np.abs(cased[0] - cased[1]).max() > 0.1
    write_settings(directory, sentence_bert_config={"do_lower_case": True})
    lower = embed(directory, ["Stone", "stone"])
    np.testing.assert_allclose(lower, [cased[1], cased[1]], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"pooling": {"pooling_mode_max_tokens": True}},
            r"1_Pooling/config.json: pools by max, expected mean or cls; giv",
        ),
        ({"pooling": {"pooling_mode": ["mean", "max"]}}, r"pools by mean and max, expected mean or cls"),
        (
            {"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}},
            r"pools by cls and mean, expected mean or cls",
        ),
        (
            {"modules": [TRANSFORMER, POOLING, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]},
            r"modules.json: names the steps Transformer, Pooling, Dense, expected Transformer, Pooling, Normalize",
        ),
        ({"modules": [{"idx": 0}]}, r"modules.json: expected a list of modules with type and path"),
        (
            {"modules": [{**TRANSFORMER, "path": "../other"}, POOLING]},
            r"modules.json: names the folder '../other', expected one inside of the model directory",
        ),
        (
            {"sentence_bert_config": {"max_seq_length": 512}},
            r"sentence_bert_config.json: max_seq_length is 512, but the model reads at most 20 tokens; give --max_",
        ),
        ({"sentence_bert_config": {"max_seq_length": "long"}}, r"max_seq_length is 'long', expected a number of 3 or"),
        ({"sentence_bert_config": []}, r"sentence_bert_config.json: found a JSON list, expected an object"),
        (
            {"config_sentence_transformers": {"default_prompt_name": "query", "prompts": {"query": "find: "}}},
            r"config_sentence_transformers.json: default_prompt_name is 'query', a prompt before every text; expected",
        ),
    ],
)
def test_settings_that_would_give_other_vectors_are_refused_by_name(directory, settings, message):
    write_settings(directory, **settings)
    with pytest.raises(InputError, match=message) as caught:
        embed(directory)
    assert "\n" not in str(caught.value)


def test_pooling_that_is_asked_for_needs_no_known_one_in_the_directory(directory):
    write_settings(directory, pooling={"pooling_mode_max_tokens": True})
    np.testing.assert_array_equal(embed(directory, pooling="cls"), embed(directory, pooling="cls", normalize=False))


def test_a_model_without_pooler_cannot_pool_with_it(directory):
    save_model(BertModel(CONFIG, parts=("encoder",)), directory, {})
    with pytest.raises(InputError, match=r"model: has no pooler; give --pooling mean or cls"):
        embed(directory, pooling="pooler")
    assert embed(directory).shape == (len(SENTENCES), CONFIG.hidden_size)


def test_a_directory_without_tokenizer_says_what_is_missing(directory):
    (directory / "tokenizer_config.json").unlink()
    with pytest.raises(
        InputError, match=r"model: has no tokenizer_config.json; expected the tokenizer beside the weig"
    ):
        embed(directory)


def test_a_vocabulary_of_another_model_is_refused(directory):
    Vocabulary((*WORDS, *(f"w{i}" for i in range(40)))).save(directory / "vocab.txt")
    with pytest.raises(InputError, match=r"vocab.txt: holds 54 tokens, more than the model's vocab_size 40; the two"):
        embed(directory)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, r"--pooling: found 'max', expected one of mean, cls, pooler"),
        ({"batch_size": 0}, r"--batch_size: found 0, expected 1 or more"),
        ({"max_seq_length": 21}, r"--max_seq_length: found 21, expected 3 to 20, which is the most the model reads"),
        ({"max_seq_length": 2}, r"--max_seq_length: found 2, expected 3 to 20"),
    ],
)
def test_options_that_cannot_be_are_wrong_usage(written, options, message):
    with pytest.raises(UsageError, match=message):
        embed(written[1], **options)


# --- the command ---------------------------------------------------------------------------------------------------

LINES = b"a river\n\nW\xc3\xa4rme \r\nstone"


def command(*words, stdin=LINES):
    return subprocess.run(
        [sys.executable, "-m", "tf_bert.cli", "embed", *map(str, words)], input=stdin, capture_output=True
    )


def test_the_command_prints_a_json_list_a_line_that_reads_back_bit_for_bit(written):
    done = command(written[1], "--pooling", "cls", "--normalize", "--max_seq_length", 5, "--batch_size", 2)
    assert done.returncode == 0, done.stderr
    found = np.array([json.loads(line) for line in done.stdout.splitlines()], np.float32)
    texts = ["a river", "", "Wärme ", "stone"]
    options = {"pooling": "cls", "normalize": True, "max_seq_length": 5, "batch_size": 2}
    np.testing.assert_array_equal(found, embed(written[1], texts, **options))


@pytest.mark.parametrize("lines", [LINES, b""])
def test_files_hold_the_same_vectors(written, tmp_path, lines):
    for name in ("vectors.npy", "vectors.jsonl"):
        told = list(embed_lines(str(written[1]), io.BytesIO(lines), str(tmp_path / name), EmbeddingOptions()))
        count = 4 if lines else 0
        assert told == [f"{tmp_path / name}: {count} vectors of 16 numbers"]
    array = np.load(tmp_path / "vectors.npy")
    assert array.dtype == np.float32 and array.shape == (count, 16)
    printed = (tmp_path / "vectors.jsonl").read_text()
    assert [json.loads(line) for line in printed.splitlines()] == [
        json.loads(line) for line in embed_lines(str(written[1]), io.BytesIO(lines), None, EmbeddingOptions())
    ]
    np.testing.assert_array_equal(
        np.array([json.loads(line) for line in printed.splitlines()], "f4").reshape(-1, 16), array
    )


def test_a_line_that_is_not_utf8_ends_the_command_and_leaves_no_file(written, tmp_path):
    done = command(written[1], "--output", tmp_path / "vectors.npy", stdin=b"a river\nW\xe4rme\n")
    assert done.returncode == 1
    message = b"tf-bert embed: standard input: line 2: byte 2 is not UTF-8; convert the text, e.g. with iconv\n"
    assert done.stderr == message and list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_wrong_usage(written):
    with pytest.raises(UsageError, match=r"--output: found vectors.csv, expected a name that ends with .npy or .jsonl"):
        list(embed_lines(str(written[1]), [], "vectors.csv", EmbeddingOptions()))


def test_a_file_in_no_directory_is_one_line(written, tmp_path):
    output = str(tmp_path / "absent" / "vectors.npy")
    with pytest.raises(InputError, match=r"absent/vectors.npy: cannot be written: No such file or directory"):
        list(embed_lines(str(written[1]), [], output, EmbeddingOptions()))


# --- sentence-transformers -----------------------------------------------------------------------------------------


@peers.needs("torch", "sentence_transformers")
@pytest.mark.parametrize("case", ["as published", "cls", "cut", "without settings"])
def test_vectors_equal_those_of_sentence_transformers(case, tmp_path):
    directory = tmp_path / "model"
    shutil.copytree(CHECKPOINT, directory)
    pooling = {"pooling_mode_cls_token": case == "cls", "word_embedding_dimension": 384}
    if case == "cls":
        write_settings(directory, pooling=pooling)
    elif case == "cut":
        write_settings(
            directory,
            (TRANSFORMER, POOLING, NORMALIZE),
            pooling,
            sentence_bert_config={"max_seq_length": 11, "do_lower_case": False},
        )
    elif case == "without settings":
        for name in ("modules.json", "sentence_bert_config.json"):
            (directory / name).unlink()
    peers.worker()("embed", directory=directory, texts=TEXTS, output=tmp_path / "vectors.npy")
    expected = np.load(tmp_path / "vectors.npy")
    np.testing.assert_allclose(embed(directory, TEXTS), expected, rtol=0, atol=1e-6 * max(1.0, np.abs(expected).max()))


@peers.needs("torch", "sentence_transformers")
def test_sentence_transformers_opens_a_directory_of_ours(written, tmp_path):
    peers.worker()("embed", directory=written[1], texts=SENTENCES, output=tmp_path / "vectors.npy")
    np.testing.assert_allclose(embed(written[1]), np.load(tmp_path / "vectors.npy"), rtol=0, atol=2e-6)


@peers.needs("torch", "sentence_transformers")
def test_a_directory_that_sentence_transformers_writes_gives_its_vectors(tmp_path):
    saved, output = tmp_path / "saved", tmp_path / "vectors.npy"
    peers.worker()("embed", directory=CHECKPOINT, texts=TEXTS, output=output, save_to=saved)
    assert not (saved / "vocab.txt").exists()  # its releases from 6 on write tokenizer.json alone
    np.testing.assert_allclose(embed(saved, TEXTS), np.load(output), rtol=0, atol=1e-6)
