"""SentencePiece vocabularies: ids equal the library's own, training repeats itself, and the whole path takes them."""

import json

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from tf_bert.cli import main
from tf_bert.config import VocabTrainConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.pretraining_data.dataset import read_shard
from tf_bert.pretraining_data.manifest import read_manifest
from tf_bert.pretraining_data.schema import parse_row
from tf_bert.tokenization.sentencepiece import SentencePieceTokenizer, SentencePieceVocabulary, train_sentencepiece
from tf_bert.tokenization.tokenizer import directory_vocabulary, load_tokenizer, load_vocabulary, save_tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def settings_for(**changes):
    values = {"input": "corpus.txt", "kind": "sentencepiece", "output": "vocab.model", "vocab_size": 2000}
    return VocabTrainConfig(**values | changes)


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def model(request, documents, lower_case):
    texts = documents[::4]
    return train_sentencepiece(texts, settings_for(sentencepiece_model=request.param, lower_case=lower_case))


def library(vocabulary):
    return sentencepiece.SentencePieceProcessor(model_proto=vocabulary.model)


# --- ids -----------------------------------------------------------------------------------------------------


def is_tie(vocabulary, ours, theirs):
    """Of cuts that are equally likely, e.g. 00|0 and 0|00, releases of the library choose differently."""
    processor = library(vocabulary)
    scores = [sum(processor.get_score(token) for token in ids) for ids in (ours, theirs)]
    return processor.decode(ours) == processor.decode(theirs) and scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_ids_are_the_librarys_on_real_text(model, documents, shared_dir):
    lines = [line for text in documents for line in text.split("\n")]
    lines += (shared_dir / "wikitext" / "wiki.valid.tokens").read_text(encoding="utf-8").split("\n")
    assert len(lines) > 14_000
    graph = tf.function(SentencePieceTokenizer(model).tokenize, input_signature=[tf.TensorSpec([None], tf.string)])
    ours, theirs = graph(tf.constant(lines)).to_list(), library(model).encode(lines)
    differences = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    assert len(differences) < 0.01 * len(lines)
    assert all(is_tie(model, a, b) for a, b in differences)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
def test_ids_are_the_librarys_on_any_text(model, texts):
    ours, theirs = SentencePieceTokenizer(model).tokenize(tf.constant(texts)).to_list(), library(model).encode(texts)
    assert all(a == b or is_tie(model, a, b) for a, b in zip(ours, theirs, strict=True))


def test_special_tokens_in_a_text_stay_text(model):
    (ids,) = SentencePieceTokenizer(model).tokenize(tf.constant(["a [MASK] [CLS] [SEP] [PAD] b"])).to_list()
    assert ids and not {0, 2, 3, 4} & set(ids)


def test_special_tokens_have_the_first_ids(model):
    assert len(model) == 2000 and model.tokens[:5] == SPECIAL
    assert (model.pad_id, model.unk_id, model.cls_id, model.sep_id, model.mask_id) == (0, 1, 2, 3, 4)


def test_pieces_without_the_mark_of_a_space_continue_a_word(model):
    tokenizer = SentencePieceTokenizer(model)
    text = "extraordinarily unbelievable things happened"
    (ids,) = tokenizer.tokenize(tf.constant([text])).to_list()
    continues = model.continues_word[ids]
    assert len(ids) > 4 and np.count_nonzero(~continues) == 4
    assert not model.continues_word[:5].any() or model.continues_word[:5].tolist() == [False, True, *[False] * 3]
    assert tokenizer.to_text(ids) == text


def test_case_is_the_models(model, lower_case):
    tokenizer = SentencePieceTokenizer(model)
    assert tokenizer.lower_case == lower_case
    upper, lower = tokenizer.tokenize(tf.constant(["THE WORLD", "the world"])).to_list()
    assert (upper == lower) == lower_case


def test_equal_texts_give_equal_models(documents, lower_case):
    def train(**changes):
        config = settings_for(vocab_size=500, lower_case=lower_case, **changes)
        return train_sentencepiece(documents[:8], config).model

    assert train() == train()
    assert train(max_training_lines=200) == train(max_training_lines=200) != train()


# --- files ---------------------------------------------------------------------------------------------------


def test_a_saved_tokenizer_opens_again(model, lower_case, tmp_path):
    save_tokenizer(tmp_path, model, lower_case=not lower_case)  # the model knows better
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["do_lower_case"] == lower_case and saved["mask_token"] == "[MASK]"
    assert (tmp_path / "spiece.model").read_bytes() == model.model and not (tmp_path / "vocab.txt").exists()
    opened = load_tokenizer(tmp_path)
    assert directory_vocabulary(tmp_path).sha256 == model.sha256
    text = tf.constant(["Some Text, Übung"])
    assert opened.tokenize(text).to_list() == SentencePieceTokenizer(model).tokenize(text).to_list()


def test_a_tokenizer_of_another_case_is_refused(model, lower_case, tmp_path):
    save_tokenizer(tmp_path, model, lower_case)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_lower_case": not lower_case}))
    with pytest.raises(InputError, match=rf"config.json: do_lower_case is {not lower_case}, but .*spiece.model says"):
        load_tokenizer(tmp_path)


def small_model(**changes) -> bytes:
    """A model trained on a few lines by the library alone."""
    import io

    written = io.BytesIO()
    options = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "bos_piece": "[CLS]", "eos_piece": "[SEP]"}
    options |= {"control_symbols": ["[MASK]"], "vocab_size": 40, "minloglevel": 2}
    lines = (f"the number {i} follows the number {i - 1}" for i in range(500))
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=written, **options | changes)
    return written.getvalue()


def test_other_names_of_padding_and_unknown_are_taken(tmp_path):
    (tmp_path / "x.model").write_bytes(small_model())
    vocabulary = load_vocabulary(tmp_path / "x.model")
    assert [vocabulary.tokens[i] for i in (vocabulary.pad_id, vocabulary.unk_id)] == ["<pad>", "<unk>"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"[PAD]\n[UNK]\n", "is not a SentencePiece model, or is damaged; copy it again or train one with"),
        (lambda: small_model()[:200], "is not a SentencePiece model, or is damaged"),
        (
            lambda: b"",
            r"holds 0 pieces, expected the 8000 that it was trained for and its normalization: it is cut off",
        ),
        (lambda: small_model(control_symbols=[]), r"\[MASK\] is not a control symbol of the model; expected a"),
        (
            lambda: small_model(control_symbols=[], user_defined_symbols=["[MASK]"]),
            r"\[MASK\] is not a control symbol of the model",
        ),
        (lambda: small_model(pad_id=-1, unk_id=0, bos_id=1, eos_id=2), "the model has no padding piece; expected one"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "x.model"
    path.write_bytes(content())
    with pytest.raises(InputError, match=rf"x\.model: {message}") as caught:
        load_vocabulary(path)
    assert "\n" not in str(caught.value)


def test_a_model_cut_off_between_two_fields_is_refused(tmp_path):
    proto = sentencepiece_model_pb2.ModelProto.FromString(small_model())
    proto.ClearField("normalizer_spec")
    (tmp_path / "x.model").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=r"x\.model: holds 40 pieces, expected the 40 that .* its normalization"):
        load_vocabulary(tmp_path / "x.model")


def test_a_missing_model(tmp_path):
    with pytest.raises(InputError, match=r"x\.model: cannot be read: No such file.*; expected a SentencePiece model"):
        load_vocabulary(tmp_path / "x.model")


# --- training that cannot be ---------------------------------------------------------------------------------


def test_a_vocabulary_larger_than_the_corpus_can_give():
    texts = [f"the number {i} follows" for i in range(300)]
    with pytest.raises(
        UsageError, match=r"vocab_size 9000 is more than .* pieces for; set it to (\d+) or less"
    ) as error:
        train_sentencepiece(texts, settings_for(vocab_size=9000))
    most = int(str(error.value).partition("set it to ")[2].split()[0])
    assert len(train_sentencepiece(texts, settings_for(vocab_size=most))) == most


def test_a_vocabulary_smaller_than_the_alphabet():
    texts = ["".join(chr(0x4E00 + 50 * row + i) for i in range(50)) for row in range(20)]
    with pytest.raises(
        UsageError, match=r"vocab_size 100 is less than the corpus has characters.*; raise it, or lower"
    ):
        train_sentencepiece(texts, settings_for(vocab_size=100))


def test_no_text():
    with pytest.raises(InputError, match=r"corpus\.txt: holds no text; check input and format"):
        train_sentencepiece([], settings_for())


@pytest.mark.parametrize(
    ("kind", "output", "message"),
    [
        (
            "sentencepiece",
            "vocab.txt",
            r"output vocab.txt with kind sentencepiece: expected a name that ends with .model",
        ),
        ("wordpiece", "vocab.model", r"output vocab.model with kind wordpiece: expected a name that does not end with"),
    ],
)
def test_the_name_of_the_output_says_its_kind(kind, output, message):
    with pytest.raises(ValueError, match=message):
        settings_for(kind=kind, output=output)


# --- the whole path ------------------------------------------------------------------------------------------


def test_from_corpus_to_guesses(wikipedia_dump, tmp_path, capsys):
    model, data, run = tmp_path / "vocab.model", tmp_path / "data", tmp_path / "run"
    corpus = ["--input", str(wikipedia_dump)]
    train = ["vocab", "train", *corpus, "--kind", "sentencepiece", "--vocab_size", "1000", "--output", str(model)]
    assert main(train) == 0
    prepare = ["prepare", *corpus, "--vocab", str(model), "--output_dir", str(data), "--max_seq_length", "64"]
    assert main([*prepare, "--validation_fraction", "0.1"]) == 0
    manifest, processor = read_manifest(data), sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert manifest.vocabulary.size == 1000 and manifest.vocabulary.lower_case
    row = parse_row(read_shard(data, manifest.splits["train"].shards[0])[0])
    assert processor.decode(row["input_ids"].tolist()).islower()

    size = ["--model.vocab_size", "1000", "--model.hidden_size", "32", "--model.num_hidden_layers", "1"]
    size += ["--model.num_attention_heads", "2", "--model.intermediate_size", "64"]
    steps = ["--training.num_train_steps", "2", "--training.global_batch_size", "8", "--training.microbatch_size", "8"]
    steps += ["--optimizer.num_warmup_steps", "1", "--cadence.evaluation_batches", "1"]
    places = ["--output_dir", str(run), "--data.data_dir", str(data), "--data.whole_word_masking"]
    assert main(["pretrain", *places, *size, *steps]) == 0
    assert (run / "model/spiece.model").read_bytes() == model.read_bytes()
    capsys.readouterr()
    assert main(["inspect", str(data / manifest.splits["train"].shards[0].name)]) == 0
    assert "\u2581" in capsys.readouterr().out
    assert main(["fill-mask", str(run / "model"), "The [MASK] is red.", "--top", "3"]) == 0
    guesses = capsys.readouterr().out.splitlines()
    assert len(guesses) == 3 and all(guess.split("%  ")[1] in manifest_tokens(model) for guess in guesses)


def manifest_tokens(model):
    return SentencePieceVocabulary.load(model).tokens


def test_a_report_compares_both_kinds(wikipedia_dump, vocabulary, model, lower_case, tmp_path, capsys):
    vocabulary.save(tmp_path / "own.txt")
    model.save(tmp_path / "other.model")
    command = ["vocab", "report", "--input", str(wikipedia_dump), "--vocab", str(tmp_path / "own.txt")]
    command += ["--other_vocab", str(tmp_path / "other.model"), "--lower_case", str(lower_case).lower()]
    assert main([*command, "--output_png", str(tmp_path / "report.png"), "--max_megabytes", "0.3"]) == 0
    shown = capsys.readouterr().out
    sizes = next(line for line in shown.splitlines() if line.startswith("tokens in the vocabulary"))
    assert sizes.split()[-2:] == ["8,000", "2,000"]
    (cases,) = (line for line in shown.splitlines() if line.startswith("case"))
    assert cases.split()[-2:] == (["uncased"] * 2 if lower_case else ["cased"] * 2)
