"""What an export answers equals what the estimator predicts, whatever the text, alone or among others."""

import itertools
import random

import numpy as np
import pytest
import tensorflow as tf
from hostile_texts import HOSTILE
from served_models import CONFIG, FAMILIES, MAX_SEQ_LENGTH, VOCABULARY, WORDS

from tf_bert.finetuning.examples import Example
from tf_bert.finetuning.model_directory import open_finetuned_model
from tf_bert.finetuning.ner import Sentence, sentences_of
from tf_bert.finetuning.ner_tags import repair
from tf_bert.finetuning.squad import Question
from tf_bert.models.directory import load_model
from tf_bert.serving.embed import EmbeddingOptions, SentenceEncoder
from tf_bert.serving.label_answers import encode_texts
from tf_bert.serving.network import Network
from tf_bert.serving.opened_model import open_model
from tf_bert.serving.predict import fill_mask
from tf_bert.serving.question_answers import QuestionAnswers
from tf_bert.serving.warmup import serialized_example
from tf_bert.tokenization.tokenizer import make_tokenizer

pytestmark = pytest.mark.slow

_RANDOM = random.Random(0)


def words(count):
    return " ".join(_RANDOM.choice(WORDS) for _ in range(count))


# Short, just about as long as a row, over-long; and what follows something else in a text.
LENGTHS = (1, 2, 5, 12, 13, 14, 27, 28, 29, 30, 31, 32, 60, 200)
TEXTS = [*HOSTILE, *map(words, LENGTHS), *(f"{a} {words(7)} {b}" for a, b in zip(HOSTILE, HOSTILE[3:], strict=False))]
PAIRS = list(zip(TEXTS, TEXTS[7:] + TEXTS[:7], strict=True))
TOKENIZER = make_tokenizer(VOCABULARY, lower_case=True)
QUESTIONS = [(("", "who saw it ?", words(30), HOSTILE[3])[i % 4], text) for i, text in enumerate(TEXTS)]


ASKED = [Question(str(i), *row) for i, row in enumerate(QUESTIONS)]


def ask(export, columns, batch_size, signature="serving_default"):
    """Rows of outputs: dicts of arrays, of requests of `batch_size` examples."""
    rows = []
    for start in range(0, len(next(iter(columns.values()))), batch_size):
        request = {name: column[start : start + batch_size] for name, column in columns.items()}
        outputs = export({name: [text.encode() for text in texts] for name, texts in request.items()}, signature)
        sizes = {len(value) for value in outputs.values()}
        assert sizes == {len(next(iter(request.values())))}
        rows += [{name: value[i] for name, value in outputs.items()} for i in range(*sizes)]
    return rows


def columns_of(kind, rows):
    names = ("question", "context") if kind.startswith("question") else ("text", "text_pair")
    return dict(zip(names, zip(*rows, strict=True), strict=False))


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("kind", ["single", "pair", "multilabel", "regression"])
def test_scores_equal_the_predictors(served, kind, batch_size):
    assert len(PAIRS) > 64
    texts = PAIRS if len(FAMILIES[kind].task.text_columns) == 2 else [(text,) for text in TEXTS]
    examples = [Example("", row, None, str(i)) for i, row in enumerate(texts)]
    expected = list(open_finetuned_model(served(kind).model_dir).predict(examples))
    found = ask(served(kind).loaded, columns_of(kind, texts), batch_size)
    assert len({str(told) for told in expected}) > len(texts) // 2, "the model hardly looks at the text"
    for row, told in zip(found, expected, strict=True):
        assert row["model_version"] == b"1"
        if kind == "regression":
            np.testing.assert_allclose(row["score"], told["score"], rtol=0, atol=1e-5)
            continue
        labels = [label.decode() for label in row["labels"]]
        assert labels == list(told["scores"]) == list(FAMILIES[kind].labels)
        np.testing.assert_allclose(row["scores"], list(told["scores"].values()), rtol=0, atol=1e-5)
        if kind == "multilabel":
            assert [label for label, chosen in zip(labels, row["predicted"], strict=True) if chosen] == told["labels"]
        else:
            assert row["label"].decode() == told["label"]


def assert_answers_equal(found, expected):
    """Rows of outputs, and what a predictor tells of `QUESTIONS`."""
    for row, told, (_, context) in zip(found, expected, QUESTIONS, strict=True):
        assert (row["answer"].decode(), row["start"], row["end"]) == (told["answer"], told["start"], told["end"])
        assert context[row["start"] : row["end"]] == row["answer"].decode()
        np.testing.assert_allclose(row["score"], told["probability"], rtol=0, atol=1e-5)
        missing = 3 - len(told["answers"])
        texts = [answer["text"] for answer in told["answers"]] + [""] * missing
        assert [text.decode() for text in row["answers"]] == texts
        scores = [answer["probability"] for answer in told["answers"]] + [0.0] * missing
        np.testing.assert_allclose(row["answer_scores"], scores, rtol=0, atol=1e-5)
        assert ("best_text" in row) == ("best_text" in told)
        if "best_text" in told:
            assert row["best_text"].decode() == told["best_text"]
            np.testing.assert_allclose(row["null_score_difference"], told["null_score_difference"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_answers_equal_the_predictors(served, batch_size):
    model = served("question or none")
    expected = list(open_finetuned_model(model.model_dir).predict(ASKED))
    answered = [bool(told["answer"]) for told in expected]
    assert any(answered) and not all(answered)
    found = ask(model.loaded, columns_of("question", QUESTIONS), batch_size, "answer")
    assert_answers_equal(found, expected)


@pytest.mark.parametrize("has_collapsed", [False, True])
@pytest.mark.parametrize("kind", ["question", "question or none"])
def test_answers_equal_the_predictors_also_where_all_scores_are_equal(served, kind, has_collapsed):
    """As after a training that has collapsed: every span of every window is as good as the others, the first wins."""
    opened, predictor = open_model(served.model(kind), "float32"), open_finetuned_model(served.model(kind))
    if has_collapsed:
        for model in (opened.model, predictor.model):
            model.span.dense.kernel.assign(np.zeros(model.span.dense.kernel.shape))
    answers = QuestionAnswers(Network(opened.model, False), opened.task, opened.tokenizer)
    outputs = answers.of_texts(*(tf.constant(column) for column in zip(*QUESTIONS, strict=True)))
    arrays = {name: value.numpy() for name, value in outputs.items()}
    found = [{name: value[i] for name, value in arrays.items()} for i in range(len(QUESTIONS))]
    assert_answers_equal(found, list(predictor.predict(ASKED)))


@pytest.mark.parametrize("batch_size", [1, 64])
def test_entities_equal_the_predictors(served, batch_size):
    predictor = open_finetuned_model(served("entities").model_dir)
    expected = list(predictor.predict(sentences_of(TEXTS, strip_accents=False)))
    found = ask(served("entities").loaded, {"text": TEXTS}, batch_size, "entities")
    assert sum(len(told["entities"]) for told in expected) > 300
    for row, told, text in zip(found, expected, TEXTS, strict=True):
        entities = [
            {"type": kind.decode(), "text": part.decode(), "start": start, "end": end}
            for kind, part, start, end in itertools.islice(
                zip(*(row[f"entity_{name}"] for name in ("types", "texts", "starts", "ends")), strict=True),
                row["entity_count"],
            )
        ]
        assert entities == told["entities"]
        assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in entities)
        filler = [row[f"entity_{name}"][row["entity_count"] :] for name in ("types", "texts", "starts", "ends")]
        assert not any(value for part in filler for value in part)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_words_are_tagged_as_by_the_predictor(served, batch_size):
    """Words as a file may have them; a text that is cut anew has others."""
    rows = [text.split() for text in TEXTS]
    sentences = [Sentence(" ".join(row), tuple(row), tuple(range(len(row)))) for row in rows]
    expected = [answer["tags"] for answer in open_finetuned_model(served("entities").model_dir).predict(sentences)]
    found = ask(served("entities").loaded, {"words": ["\n".join(row) for row in rows]}, batch_size, "words")
    tags = [[tag.decode() for tag in row["tags"][: row["word_count"]]] for row in found]
    assert [repair(row) for row in tags] == expected
    assert not any(any(row["tags"][row["word_count"] :]) for row in found)


MASKED = [
    "the [MASK] fell",
    "[MASK]",
    "[MASK][MASK] ,[MASK]",
    "no mask",
    "",
    "[CLS] [mask] [MASK]",
    "x [SEP] [MASK] \x00 é",
]


def expected_guesses(model, text, longest):
    """Tokens and probabilities under every mask, by the model alone."""
    tokenizer = TOKENIZER
    pieces = tokenizer.tokenize(tf.constant(text.split("[MASK]"))).to_list()
    ids = list(itertools.chain.from_iterable([VOCABULARY.mask_id, *piece] for piece in pieces))[1:]
    ids = np.array([[VOCABULARY.cls_id, *ids[: longest - 2], VOCABULARY.sep_id]], "int32")
    masks = np.flatnonzero(ids[0] == VOCABULARY.mask_id)[None]
    inputs = {"input_ids": ids, "input_mask": np.ones_like(ids), "masked_lm_positions": masks.astype("int32")}
    scores = tf.nn.softmax(model(inputs)["masked_lm_logits"][0]).numpy()
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return [[VOCABULARY.tokens[i] for i in row] for row in order], np.take_along_axis(scores, order, 1)


@pytest.mark.parametrize(("batch_size", "signature"), [(1, "fill_mask"), (64, "serving_default")])
def test_guesses_equal_the_models(served, batch_size, signature):
    texts = [*MASKED, *(f"{text} [MASK] {text}" for text in TEXTS), " ".join(["the [MASK]"] * 60)]
    model = load_model(served("pretrained").model_dir)
    found = ask(served("pretrained").loaded, {"text": texts}, batch_size, signature)
    for row, text in zip(found, texts, strict=True):
        tokens, scores = expected_guesses(model, text, CONFIG.max_position_embeddings)
        count = row["mask_count"]
        assert count == len(tokens)
        assert [[token.decode() for token in guesses] for guesses in row["tokens"][:count]] == tokens
        np.testing.assert_allclose(row["scores"][:count], scores.reshape(-1, 5), rtol=0, atol=1e-5)
        assert not row["scores"][count:].any() and not any(row["tokens"][count:].ravel())


def test_guesses_are_those_of_the_command(served):
    export = served("pretrained").loaded
    (row,) = ask(export, {"text": ["the [MASK] and [MASK] fell"]}, 1)
    lines = []
    for number, (tokens, scores) in enumerate(zip(row["tokens"], row["scores"], strict=True), start=1):
        lines.append(f"[MASK] {number}")
        lines += [f"  {score:6.1%}  {token.decode()}" for token, score in zip(tokens, scores, strict=True)]
    assert list(fill_mask(str(served("pretrained").model_dir), "the [MASK] and [MASK] fell")) == lines


@pytest.mark.parametrize("kind", ["encoder", "pretrained", "pair", "question or none", "entities"])
def test_vectors_equal_those_of_the_command(served, kind):
    expected = list(SentenceEncoder(served(kind).model_dir, EmbeddingOptions()).embed(TEXTS))
    found = [row["embedding"] for row in ask(served(kind).loaded, {"text": TEXTS}, 64, "embed")]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["single", "pair", "multilabel", "regression", "pretrained", "encoder"])
def test_rows_of_ids_have_the_scores_of_their_texts(served, kind):
    """Rows as the original release makes them, padded further than needed, as callers may send them."""
    export = served(kind).loaded
    names = sorted(export.inputs())
    texts = dict(
        zip(names, (["the [MASK] castle fell", "anna"], ["it came", "before the winter [MASK]"]), strict=False)
    )
    tokenizer, ids = TOKENIZER, np.zeros((2, 40), "int32")
    segments, mask = np.zeros_like(ids), np.zeros_like(ids)
    mask_id = VOCABULARY.mask_id if kind == "pretrained" else None
    for row in range(2):
        tokens, kinds = [VOCABULARY.cls_id], [0]
        for segment, name in enumerate(names):
            text = texts[name][row]
            parts = text.split("[MASK]") if mask_id else [text]
            pieces = tokenizer.tokenize(tf.constant(parts)).to_list()
            joined = list(itertools.chain.from_iterable([mask_id, *piece] for piece in pieces))[1:]
            tokens += [*joined, VOCABULARY.sep_id]
            kinds += [segment] * (len(joined) + 1)
        ids[row, : len(tokens)], segments[row, : len(tokens)], mask[row, : len(tokens)] = tokens, kinds, 1
    of_texts = export(texts)
    of_rows = export({"input_ids": ids, "segment_ids": segments, "input_mask": mask}, "tokens")
    assert set(of_rows) == set(of_texts)
    for name, value in of_texts.items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(of_rows[name], value, rtol=0, atol=1e-5)
        else:
            assert of_rows[name].tolist() == value.tolist()


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        ("question or none", {"start_logits": (3, 9), "end_logits": (3, 9)}),
        ("entities", {"scores": (3, 9, 5), "labels": (3, 5)}),
    ],
)
def test_rows_of_ids_have_a_score_for_every_token(served, kind, outputs):
    rows = {"input_ids": np.full((3, 9), 7), "segment_ids": np.zeros((3, 9)), "input_mask": np.ones((3, 9))}
    found = served(kind).loaded({name: value.astype("int32") for name, value in rows.items()}, "tokens")
    assert {name: value.shape for name, value in found.items()} == {**outputs, "model_version": (3,)}
    if kind == "entities":
        np.testing.assert_allclose(found["scores"].sum(-1), 1.0, atol=1e-6)


@pytest.mark.parametrize("kind", ["pair", "question or none", "pretrained"])
def test_serialised_examples_are_answered_as_their_texts(served, kind):
    export = served(kind).loaded
    texts = {name: [f"the {word} came", "é [MASK]"] for name, word in zip(export.inputs(), WORDS, strict=False)}
    examples = [serialized_example({name: column[i] for name, column in texts.items()}) for i in range(2)]
    found, expected = export({"examples": examples}, "examples"), export(texts)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    with pytest.raises(tf.errors.InvalidArgumentError, match="is required but could not be found"):
        export({"examples": [serialized_example({"other": "text"})]}, "examples")


def test_bytes_that_are_not_utf8_are_left_out(served):
    for kind in ("single", "pair", "question or none", "entities", "pretrained"):
        export = served(kind).loaded
        for signature in ("serving_default", "embed"):
            names = export.inputs(signature)
            broken = export({name: [b"the\xff cas\xc3tle [MASK] \xe2\x82", b"\xf8"] for name in names}, signature)
            whole = export({name: ["the castle [MASK] ", ""] for name in names}, signature)
            for name, value in whole.items():
                np.testing.assert_array_equal(broken[name], value)


def test_a_batch_is_as_long_as_its_longest_text(served):
    """What the encoder is given: never padded to max_seq_length."""
    tokenizer = open_model(served.model("pair"), "float32").tokenizer

    def length(*columns):
        rows = encode_texts(tuple(map(tf.constant, columns)), tokenizer, MAX_SEQ_LENGTH)
        assert {part.shape for part in rows} == {rows.input_mask.shape}
        return rows.input_mask.shape[1], tf.reduce_sum(rows.input_mask, axis=1).numpy().tolist()

    assert length(["the"], ["old"]) == (5, [5])
    assert length(["the", "the old castle"], ["old", "it"]) == (7, [5, 7])
    assert length([""]) == (2, [2])
    assert length([words(100)], [words(100)]) == (MAX_SEQ_LENGTH, [MAX_SEQ_LENGTH])
