"""SQuAD and NER through the estimator: a tiny model learns them, and what it tells is what the files ask for."""

import dataclasses
import io

import keras
import ner_files
import numpy as np
import pytest
import squad_files
from tiny_model import CONFIG

from tf_bert.config import FinetuneConfig, LearningConfig, RunConfig, SpanConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.finetuning.entities import EntityFamily
from tf_bert.finetuning.estimator import BertEstimator
from tf_bert.finetuning.families import family_from
from tf_bert.finetuning.model_directory import open_finetuned_model
from tf_bert.finetuning.ner import read_ner
from tf_bert.finetuning.question_answering import QuestionFamily
from tf_bert.finetuning.run import family_of
from tf_bert.models.directory import save_model
from tf_bert.models.model import BertModel
from tf_bert.tokenization.tokenizer import save_tokenizer
from tf_bert.tokenization.vocab import SPECIAL_TOKENS, Vocabulary

LEARNING = LearningConfig(max_seq_length=32, global_batch_size=16, learning_rate=5e-3, num_train_epochs=1.0)


def write_model(directory, words):
    keras.utils.set_random_seed(3)
    directory.mkdir()
    vocabulary = Vocabulary((*SPECIAL_TOKENS, *dict.fromkeys(word.lower() for word in words)))
    save_model(BertModel(dataclasses.replace(CONFIG, vocab_size=len(vocabulary))), directory, {})
    save_tokenizer(directory, vocabulary, lower_case=True)
    return str(directory)


@pytest.fixture(scope="module", params=["1.1", "2.0"])
def questions(request, tmp_path_factory):
    """An estimator that has learned to answer, and the directory of the files."""
    directory = tmp_path_factory.mktemp("squad")
    squad_files.write_squad(directory, "train", request.param, questions=120)
    squad_files.write_squad(directory, "dev", request.param, questions=40)
    told = []
    config = FinetuneConfig(task="squad", data=str(directory), squad=SpanConfig(doc_stride=8))
    family = family_of(config, told.append)
    assert family == QuestionFamily(request.param == "2.0", SpanConfig(doc_stride=8)) and told == []
    estimator = BertEstimator(
        family,
        RunConfig(model_dir=str(directory / "run")),
        LEARNING,
        write_model(directory / "init", squad_files.WORDS),
    )
    return estimator.train(family.read(str(directory), "train"), max_steps=150), directory


def test_questions_are_answered(questions):
    estimator, directory = questions
    examples = estimator.family.read(str(directory), "dev")
    values = estimator.evaluate(examples).values
    assert values["f1"] >= 90
    told = list(estimator.predict(examples))
    assert [prediction["id"] for prediction in told] == [question.id for question in examples]
    right = 0
    for question, prediction in zip(examples, told, strict=True):
        assert prediction["answer"] == question.context[prediction["start"] : prediction["end"]]
        gold = "" if question.is_impossible else question.answers[0].text
        right += prediction["answer"] == gold
        assert 0 < prediction["probability"] <= 1
        assert ("null_score_difference" in prediction) == estimator.family.has_impossible
    assert right / len(examples) == pytest.approx(values.get("exact_match", values.get("exact")) / 100)


def test_a_model_directory_of_questions_answers_lines(questions):
    estimator, directory = questions
    predictor = open_finetuned_model(directory / "run")
    assert predictor.family == estimator.family
    lines = (
        b"Which word is marked ?\tThe old people came here castle and fell .\n"
        b'{"question": "Which word is marked ?", "context": "Then here  Violin back."}\r\n'
    )
    told = list(predictor.predict(predictor.family.read_lines(io.BytesIO(lines), "standard input")))
    assert [(answer["answer"], answer["start"], answer["end"]) for answer in told] == [
        ("castle", 25, 31),
        ("Violin", 11, 17),
    ]
    with pytest.raises(InputError, match=r"standard input: line 2: expected a question and its context with a tab be"):
        list(predictor.family.read_lines(io.BytesIO(b"a\tb\nonly a question\n"), "standard input"))


def test_windows_of_a_long_context_are_one_question(questions):
    """The answer is where only the last of many windows sees it."""
    estimator, _ = questions
    filler = "the old people came and fell and then it was seen by many "
    line = f"Which word is marked ?\t{filler * 8}here garden .\n".encode()
    examples = list(estimator.family.read_lines(io.BytesIO(line), "a pipe"))
    encoded, windows = estimator.family.encode(examples, estimator.tokenizer, 32, with_targets=False)
    assert len(encoded) == len(windows) > 8
    (told,) = estimator.predict(examples)
    if not estimator.family.has_impossible:
        assert told["answer"] == "garden"
    assert told["start"] <= len(examples[0].context)


@pytest.fixture(scope="module")
def entities(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ner")
    ner_files.write_ner(directory, "train", sentences=120)
    ner_files.write_ner(directory, "dev", sentences=40)
    told = []
    family = family_of(FinetuneConfig(task="NER", data=str(directory)), told.append)
    assert family.labels == ("O", "B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER")
    assert told == [f"{directory}/train.txt: found 7 labels: {', '.join(family.labels)}"]
    estimator = BertEstimator(
        family, RunConfig(model_dir=str(directory / "run")), LEARNING, write_model(directory / "init", ner_files.WORDS)
    )
    return estimator.train(family.read(str(directory), "train"), max_steps=60), directory


def test_entities_are_found(entities):
    estimator, directory = entities
    sentences = estimator.family.read(str(directory), "dev")
    metrics = estimator.evaluate(sentences)
    assert metrics.values["f1"] > 0.95 and metrics.values["f1/PER"] > 0.9
    told = list(estimator.predict(sentences))
    right = [prediction["tags"] == list(sentence.tags) for prediction, sentence in zip(told, sentences, strict=True)]
    assert np.mean(right) > 0.9
    for prediction in told:
        for entity in prediction["entities"]:
            assert prediction["text"][entity["start"] : entity["end"]] == entity["text"]


def test_a_model_directory_of_entities_reads_raw_lines(entities):
    estimator, directory = entities
    predictor = open_finetuned_model(directory / "run")
    assert predictor.family == estimator.family
    line = b"The old people came from  New Delhi and then Anna Berg.\n"
    (told,) = predictor.predict(predictor.family.read_lines(io.BytesIO(line), "standard input"))
    assert told["entities"] == [
        {"type": "LOC", "text": "New Delhi", "start": 26, "end": 35},
        {"type": "PER", "text": "Anna Berg", "start": 45, "end": 54},
    ]


def test_targets_are_on_the_first_piece_of_every_word(entities):
    estimator, directory = entities
    sentences = read_ner(directory / "train.txt").sentences
    encoded, windows = estimator.family.encode(sentences, estimator.tokenizer, 32, with_targets=True)
    weights, labels = encoded.token_targets["label_weights"], encoded.token_targets["token_labels"]
    assert weights.sum() == sum(len(sentence.words) for sentence in sentences)
    expected = [estimator.family.labels.index(tag) for sentence in sentences for tag in sentence.tags]
    assert labels[weights > 0].tolist() == expected and not labels[weights == 0].any()
    assert len(windows) == len(encoded) == len(sentences)


def test_families_come_back_from_their_settings(questions, entities):
    import json

    for family in (questions[0].family, entities[0].family):
        assert family_from(json.loads(json.dumps(family.settings()))) == family


def test_missing_files_are_named(tmp_path):
    with pytest.raises(
        InputError, match=r"has no train file of SQuAD; expected one of .*train-v1.1.json.*, found nothing"
    ):
        family_of(FinetuneConfig(task="SQuAD", data=str(tmp_path)), print)
    (tmp_path / "eng.txt").touch()
    with pytest.raises(InputError, match=r"has no train file of NER; .*'eng.txt'; name the file with train_file"):
        family_of(FinetuneConfig(task="ner", data=str(tmp_path)), print)
    with pytest.raises(InputError, match=r"absent: no such file or directory; expected the train file of NER"):
        family_of(FinetuneConfig(task="ner", data=str(tmp_path / "absent")), print)
    with pytest.raises(UsageError, match=r"split: NER has no 'validation'; expected one of train, dev, test"):
        EntityFamily(("O", "B-X")).read(str(tmp_path), "validation")
