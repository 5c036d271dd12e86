"""Another vocabulary for trained weights: which rows are kept, and what the others begin as."""

import dataclasses
import json

import numpy as np
import pytest
from batches import TINY

from tf_bert.cli import main
from tf_bert.errors import UsageError
from tf_bert.interop.source import open_source
from tf_bert.interop.vocabulary import change_vocabulary, with_vocabulary
from tf_bert.models.directory import read_directory, save_model
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.tokenization.tokenizer import save_tokenizer
from tf_bert.tokenization.vocab import SPECIAL_TOKENS, Vocabulary, extend_vocabulary

OLD = Vocabulary((*SPECIAL_TOKENS, "heart", "##beat", "##s", "card", "##io", "##logy", "the", "b", "##eat"), "old.txt")
NEW = Vocabulary(
    ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "heartbeats", "the", "##ology", "cardiology", "##beat", "ß", "beat"),
    "new.txt",
)
# What WordPiece makes of each new token, by the old vocabulary.
PIECES = [
    ["[UNK]"], ["[PAD]"], ["[CLS]"], ["[SEP]"], ["[MASK]"], ["heart", "##beat", "##s"], ["the"], [],
    ["card", "##io", "##logy"], ["##beat"], [], ["b", "##eat"],
]  # fmt: skip


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def source(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("source")
    # Three rows more than tokens, as vocabularies are padded for the sake of speed.
    config = dataclasses.replace(TINY, vocab_size=len(OLD) + 3, tie_word_embeddings=request.param)
    model = BertForPretraining(config)
    rng = np.random.default_rng(2)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    save_model(model, directory, {"pad_token_id": 0})
    save_tokenizer(directory, OLD, lower_case=True)
    return directory


def test_common_tokens_keep_their_rows_and_new_ones_get_the_mean_of_their_pieces(source):
    weights = read_directory(source)
    change = change_vocabulary(OLD, NEW)
    assert [[OLD.tokens[i] for i in ids] for ids in change.pieces] == PIECES
    changed = with_vocabulary(weights, change, vocab_size=16)
    assert changed.config.vocab_size == 16
    names = ["bert.embeddings.word_embeddings.weight", "cls.predictions.bias"]
    names += [] if weights.config.tie_word_embeddings else ["cls.predictions.decoder.weight"]
    for name in names:
        old, new = weights.read(name), changed.read(name)
        assert new.shape == changed.tensors[name].shape == (16, *old.shape[1:])
        mean = old[: len(OLD)].mean(axis=0)
        expected = [
            old[[OLD.tokens.index(piece) for piece in pieces]].mean(axis=0) if pieces else mean for pieces in PIECES
        ]
        np.testing.assert_array_equal(new, [*expected, *[mean] * 4])
    untouched = "bert.encoder.layer.1.output.dense.weight"
    np.testing.assert_array_equal(changed.read(untouched), weights.read(untouched))


def test_the_change_is_told(source):
    lines = list(change_vocabulary(OLD, NEW).lines())
    assert lines == [
        "new.txt: in the place of the 14 tokens of old.txt",
        "  7 tokens keep their rows, e.g. [UNK], [PAD], [CLS], [SEP], [MASK]",
        "  3 tokens begin as the mean of their old pieces, e.g. heartbeats, cardiology, beat",
        "  2 tokens have no old pieces and begin as the mean of all rows, e.g. ##ology, ß",
        "  7 old tokens are gone",
    ]


def test_a_vocabulary_larger_than_the_model_is_refused(source):
    with pytest.raises(UsageError, match=r"model.vocab_size 11 is smaller than new.txt, 12 tokens"):
        with_vocabulary(read_directory(source), change_vocabulary(OLD, NEW), vocab_size=11)


def test_extending_keeps_the_old_ids_and_adds_what_is_new(tmp_path, capsys):
    extended = extend_vocabulary(OLD, NEW)
    assert extended.tokens == (*OLD.tokens, "heartbeats", "##ology", "cardiology", "ß", "beat")
    OLD.save(tmp_path / "old.txt")
    NEW.save(tmp_path / "new.txt")
    words = ["vocab", "extend", *(str(tmp_path / name) for name in ("old.txt", "new.txt", "both.txt"))]
    assert main([*words, "--max_new_tokens", "2"]) == 0
    assert Vocabulary.load(tmp_path / "both.txt").tokens == (*OLD.tokens, "heartbeats", "##ology")
    assert "14 tokens of" in (told := capsys.readouterr().out) and told.endswith(", 2 new ones\n")
    assert main([*words, "--max_new_tokens", "0"]) == 2
    assert "--max_new_tokens: found 0, expected 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["hf", "google", "model-garden"])
def test_convert_writes_every_format_with_another_vocabulary(source, tmp_path, to, capsys):
    NEW.save(tmp_path / "new.txt")
    words = ["convert", str(source), str(tmp_path / "out"), "--to", to, "--vocab", str(tmp_path / "new.txt")]
    code = main(words)
    told = capsys.readouterr()
    if not read_directory(source).config.tie_word_embeddings and to != "hf":
        assert code == 1 and told.err.count("\n") == 1 and not (tmp_path / "out").exists()
        assert "cls.predictions.decoder.weight is a matrix of its own; checkpoints of" in told.err
        return
    assert code == 0, told.err
    assert "7 tokens keep their rows" in told.out and "12 tokens, uncased" in told.out
    expected = with_vocabulary(read_directory(source), change_vocabulary(OLD, NEW))
    with open_source(str(tmp_path / "out")) as opened:
        assert opened.vocabulary.tokens == NEW.tokens and opened.lower_case
        assert opened.weights.parts == expected.parts
        for name in expected.tensors:
            np.testing.assert_array_equal(opened.weights.read(name), expected.read(name), err_msg=name)
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert lineage["converted_from"]["source"] == str(source)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"--to": "onnx"}, 2, "--to: found 'onnx', expected one of hf, google, model-garden"),
        ({"source": "absent"}, 1, "absent: no such file or directory; expected"),
        ({"dest": "."}, 2, ".: is there already; choose a new directory"),
        ({"--vocab": "absent.txt"}, 1, "absent.txt: cannot be read: No such file"),
    ],
)
def test_mistakes_in_converting_are_one_line(source, tmp_path, monkeypatch, capsys, change, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    words = {"source": str(source), "dest": "out", "--to": "hf", "--vocab": "new.txt"}
    NEW.save(tmp_path / "new.txt")
    words |= change
    assert (
        main(["convert", words.pop("source"), words.pop("dest"), *(w for pair in words.items() for w in pair)]) == code
    )
    told = capsys.readouterr().err
    assert told.startswith(f"tf-bert convert: {message}") and told.count("\n") == 1
    assert not (tmp_path / "out").exists()
