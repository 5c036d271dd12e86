"""SQuAD: files are read and checked, windows are those of the original, answers are found again, the best spans win."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from squad_files import OTHERS, WORDS, squad_question, squad_record, write_squad

from tf_bert.config import VocabTrainConfig
from tf_bert.errors import Diverged, InputError, UsageError
from tf_bert.finetuning.squad import Answer, Question, read_squad
from tf_bert.finetuning.squad_decoding import decode_answers
from tf_bert.finetuning.squad_metric import evaluate_v1, evaluate_v2
from tf_bert.finetuning.squad_windows import make_squad_windows
from tf_bert.tokenization.sentencepiece import SentencePieceTokenizer, train_sentencepiece
from tf_bert.tokenization.vocab import SPECIAL_TOKENS, Vocabulary
from tf_bert.tokenization.wordpiece import WordPieceTokenizer

CONTEXT = "Zoë’s café, in 東京 (Tōkyō), opened in 1895–96."


def write(path, data):
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_file_of_each_version(tmp_path):
    data = read_squad(write_squad(tmp_path, "dev", questions=3))
    assert [question.id for question in data.questions] == ["dev-0000", "dev-0001", "dev-0002"]
    first, second, third = data.questions
    assert first.context == second.context != third.context
    assert len(first.answers) == 3 and not first.is_impossible and not data.has_impossible and data.notes == ()
    text, start = first.target
    assert first.context[: start - 1].lower().endswith("here") and first.context[start:].startswith(text)

    data = read_squad(write_squad(tmp_path, "train", "2.0", questions=6))
    assert [question.is_impossible for question in data.questions] == [True, True, False, False, False, False]
    assert data.has_impossible and data.questions[0].answers == () and data.questions[0].target is None


def test_an_answer_beside_its_place_is_moved_and_one_that_is_not_there_is_said(tmp_path):
    qas = [
        squad_question("right", "?", ("café", 6)),
        squad_question("before", "?", ("café", 8)),
        squad_question("after", "?", ("café", 0)),
        squad_question("in", "?", ("in", 32)),
        squad_question("far", "?", ("1895", 0)),
        squad_question("absent", "?", ("Paris", 0)),
        squad_question("one of two", "?", ("Paris", 0), ("café", 6)),
        squad_question("beyond", "?", ("96.", 10_000)),
    ]
    data = read_squad(write(tmp_path / "x.json", squad_record(CONTEXT, qas)))
    places = [question.answers[0].start for question in data.questions]
    assert places == [6, 6, 6, 34, None, None, None, None]
    assert [question.target for question in data.questions[4:]] == [None, None, Answer("café", 6), None]
    assert data.notes == (
        f"{tmp_path}/x.json: 4 questions: an answer is not where the file says; it was looked for nearby: before, "
        "after, in, one of two",
        f"{tmp_path}/x.json: 3 questions: no answer is in the context; not trained on: far, absent, beyond",
    )


def test_a_question_to_be_predicted_has_no_answers(tmp_path):
    record = squad_record("Some text.", [{"id": "a", "question": ""}])
    (question,) = read_squad(write(tmp_path / "x.json", record)).questions
    assert question == Question("a", "", "Some text.", (), is_impossible=True)


def test_byte_order_mark_windows_newlines_and_half_a_surrogate(tmp_path):
    record = squad_record("Some \ud800 text.\r\nMore \U0001f600.", [squad_question("a", "?", ("More", 14))])
    text = json.dumps(record, indent=1).replace("\n", "\r\n")
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (question,) = read_squad(tmp_path / "x.json").questions
    assert question.context == "Some \ufffd text.\r\nMore \U0001f600." and question.target == Answer("More", 14)


def broken(change):
    """A good file with one thing changed."""
    record = squad_record("Some text.", [squad_question("a", "?", ("Some", 0)), squad_question("b", "?", ("text", 5))])
    change(record, record["data"][0]["paragraphs"][0])
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, expected a SQuAD file; copy it again"),
        (b"\n\n", "is empty, expected a SQuAD file"),
        (b"{", r"is not valid JSON \(.*line 1 column 2.*\); expected a SQuAD file, copy it again"),
        (b"[1]", "found a list, expected an object with data, as SQuAD files have it"),
        (b"[" * 100_000, r"is not valid JSON \(.*recursion.*\)"),
        (
            b'{\n"data": "caf\xe9"}',
            "line 2: found byte 0xe9, expected UTF-8 text; convert the file, e.g. with iconv -f LATIN1 -t UTF-8",
        ),
        (b"{}", r"data: is missing, expected a list, as SQuAD files have it"),
        (b'{"data": []}', r"holds no question, expected at least one in data\[...\]\.paragraphs\[...\]\.qas"),
        (b'{"data": [null]}', r"data\[0\]: is null, expected an object"),
        (broken(lambda r, p: p.pop("context")), r"data\[0\]\.paragraphs\[0\]\.context: is missing, expected a string"),
        (broken(lambda r, p: p.update(context=" ")), r"data\[0\]\.paragraphs\[0\]\.context: is empty, expected text"),
        (broken(lambda r, p: p.update(qas={})), r"data\[0\]\.paragraphs\[0\]\.qas: is an object, expected a list"),
        (broken(lambda r, p: p["qas"][1].pop("id")), r"data\[0\]\.paragraphs\[0\]\.qas\[1\]\.id: is missing, expected"),
        (broken(lambda r, p: p["qas"][1].update(id=7)), r"qas\[1\]\.id: is a whole number, expected a string"),
        (
            broken(lambda r, p: p["qas"][1].update(id="a")),
            r"data\[0\]\.paragraphs\[0\]\.qas\[1\]\.id: 'a' is also the id of data\[0\]\.paragraphs\[0\]\.qas\[0\]; "
            "expected an id of its own for every question",
        ),
        (broken(lambda r, p: p["qas"][0].pop("question")), r"qas\[0\]\.question: is missing, expected a string"),
        (broken(lambda r, p: p["qas"][0].update(answers=None)), r"qas\[0\]\.answers: is null, expected a list"),
        (
            broken(lambda r, p: p["qas"][0]["answers"].append({"text": "Some"})),
            r"qas\[0\]\.answers\[1\]\.answer_start: is missing, expected a whole number",
        ),
        (
            broken(lambda r, p: p["qas"][0]["answers"].append({"text": "Some", "answer_start": True})),
            r"answers\[1\]\.answer_start: is true or false, expected a whole number",
        ),
        (
            broken(lambda r, p: p["qas"][0]["answers"].append({"text": "", "answer_start": 0})),
            r"qas\[0\]\.answers\[1\]\.text: is empty, expected text; write it, or remove the record",
        ),
        (
            broken(lambda r, p: p["qas"][0].update(is_impossible=True)),
            r"qas\[0\]: is_impossible is true, and there are 1 answers; expected one or the other",
        ),
        (broken(lambda r, p: p["qas"][0].update(is_impossible="no")), r"is_impossible: is a string, expected true or"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.json: (.*)?{message}") as caught:
        read_squad(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"no\.json: cannot be read: No such file or directory; expected a SQuAD file"):
        read_squad(tmp_path / "no.json")


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    """Knows the words of the files, pieces and single characters; capital letters and accents go."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [*letters, *(f"##{letter}" for letter in letters), "##ing", "##ed", *"0123456789,.?'-()"]
    return WordPieceTokenizer(Vocabulary((*SPECIAL_TOKENS, *WORDS[:-2], *pieces)), lower_case=True)


@pytest.fixture(scope="module")
def pieces_tokenizer():
    config = VocabTrainConfig(input="x", kind="sentencepiece", output="x.model", vocab_size=60, character_coverage=1.0)
    return SentencePieceTokenizer(train_sentencepiece([" ".join(WORDS), CONTEXT], config))


def tokens_of(tokenizer, window):
    return [tokenizer.vocabulary.tokens[token] for token in window.input_ids]


def test_a_window_by_hand(tokenizer):
    question = Question("a", "Which word?", "Then people-watching: ÓLD.", (Answer("ÓLD", 22),))
    (window,) = make_squad_windows([question], tokenizer, 32, for_training=True)
    assert tokens_of(tokenizer, window) == [
        *("[CLS]", "which", "word", "?", "[SEP]"),
        *("then", "people", "-", "w", "##a", "##t", "##c", "##h", "##ing", "[UNK]", "old", ".", "[SEP]"),
    ]
    assert window.context_begin == 5 and window.question_index == 0
    assert window.input_ids.dtype == window.starts.dtype == window.ends.dtype == np.int32
    assert window.starts.tolist() == [0, 5, 11, *[12] * 6, 20, 22, 25]
    assert window.ends.tolist() == [4, 11, 12, *[20] * 6, 21, 25, 26]
    assert window.has_most_context.all()
    assert (window.start_position, window.end_position) == (15, 15)


def original_pieces(tokens, room, doc_stride):
    """The loop of `run_squad.py` (`convert_examples_to_features`)."""
    pieces, begin = [], 0
    while begin < tokens:
        length = min(tokens - begin, room)
        pieces.append((begin, length))
        if begin + length == tokens:
            break
        begin += min(length, doc_stride)
    return pieces


def original_owner(pieces, position):
    """The piece in which a token is scored, as in `_check_is_max_context`."""
    best, owner = None, None
    for number, (begin, length) in enumerate(pieces):
        end = begin + length - 1
        if begin <= position <= end:
            score = min(position - begin, end - position) + 0.01 * length
            if best is None or score > best:
                best, owner = score, number
    return owner


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    words=st.integers(1, 90),
    query=st.integers(0, 12),
    max_seq_length=st.integers(12, 40),
    max_query_length=st.integers(1, 8),
    doc_stride=st.integers(1, 50),
    first=st.integers(0, 89),
    length=st.integers(1, 12),
)
def test_windows_are_those_of_the_original(
    tokenizer, words, query, max_seq_length, max_query_length, doc_stride, first, length
):
    names = [OTHERS[i % len(OTHERS)] for i in range(words)]
    first = min(first, words - 1)
    last = min(first + length, words) - 1
    starts = [sum(len(name) + 1 for name in names[:i]) for i in range(words)]
    answer = Answer(" ".join(names[first : last + 1]), starts[first])
    question = Question("a", " ".join(["marked"] * query), " ".join(names), (answer,))
    windows = make_squad_windows([question], tokenizer, max_seq_length, max_query_length, doc_stride, for_training=True)
    query = min(query, max_query_length)
    pieces = original_pieces(words, max_seq_length - query - 3, doc_stride)
    assert len(windows) == len(pieces)
    for number, (window, (begin, size)) in enumerate(zip(windows, pieces, strict=True)):
        piece = names[begin : begin + size]
        assert tokens_of(tokenizer, window) == ["[CLS]", *["marked"] * query, "[SEP]", *piece, "[SEP]"]
        assert len(window.input_ids) <= max_seq_length
        assert window.starts.tolist() == starts[begin : begin + size]
        owners = [original_owner(pieces, position) for position in range(begin, begin + size)]
        assert window.has_most_context.tolist() == [owner == number for owner in owners]
        shift = window.context_begin - begin
        is_inside = begin <= first and last < begin + size
        expected = (first + shift, last + shift) if is_inside else (0, 0)
        assert (window.start_position, window.end_position) == expected


@pytest.mark.parametrize("words", [400, 530, 640, 1000])
def test_a_much_shorter_last_piece_loses_tokens_to_the_one_before(tokenizer, words):
    windows = make_squad_windows([Question("a", "", " ".join(["then"] * words))], tokenizer, 384)
    pieces = original_pieces(words, 381, 128)
    assert [len(window.starts) for window in windows] == [length for _, length in pieces]
    for number, (window, (begin, length)) in enumerate(zip(windows, pieces, strict=True)):
        owners = [original_owner(pieces, position) for position in range(begin, begin + length)]
        assert window.has_most_context.tolist() == [owner == number for owner in owners]


TEXTS = st.text(st.sampled_from("abÉz 中\u0301\u00ad\u200d.,'’-\n\u00a0😀İß\u0000"), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(text=TEXTS, begin=st.integers(0, 39), length=st.integers(1, 20))
def test_a_target_is_the_words_that_hold_the_answer(tokenizer, text, begin, length):
    begin = min(begin, len(text) - 1)
    end = min(begin + length, len(text))
    question = Question("a", "?", text, (Answer(text[begin:end], begin),))
    (window,) = make_squad_windows([question], tokenizer, 128, for_training=True)
    holding = [
        position
        for position, (a, b) in enumerate(zip(window.starts, window.ends, strict=True), window.context_begin)
        if a < end and b > begin
    ]
    expected = (holding[0], holding[-1]) if holding else (0, 0)
    assert (window.start_position, window.end_position) == expected


def test_places_are_characters(tokenizer, pieces_tokenizer):
    for some_tokenizer in (tokenizer, pieces_tokenizer):
        for answer in ("Zoë", "café", "東京", "Tōkyō", "(Tōkyō)", "1895–96", "Zoë’s café"):
            question = Question("a", "?", CONTEXT, (Answer(answer, CONTEXT.index(answer)),))
            (window,) = make_squad_windows([question], some_tokenizer, 128, for_training=True)
            first, last = window.start_position - window.context_begin, window.end_position - window.context_begin
            assert CONTEXT[window.starts[first] : window.ends[last]] == answer


def test_what_is_trained_on_and_what_is_predicted(tokenizer):
    questions = [
        Question("lost", "?", "then it fell", (Answer("came", None),)),
        Question("none", "?", "then it fell", (), is_impossible=True),
        Question("second", "?", "then it fell", (Answer("came", None), Answer("it", 5))),
        Question("no token", "?", "then \u200b fell", (Answer("\u200b", 5),)),
    ]
    windows = make_squad_windows(questions, tokenizer, 32, for_training=True)
    assert [(w.question_index, w.start_position, w.end_position) for w in windows] == [(1, 0, 0), (2, 4, 4), (3, 0, 0)]
    windows = make_squad_windows(questions, tokenizer, 32)
    assert [(w.question_index, w.start_position, w.end_position) for w in windows] == [(i, 0, 0) for i in range(4)]


def test_a_context_without_tokens_has_a_window(tokenizer):
    (window,) = make_squad_windows([Question("a", "?", " \u200b")], tokenizer, 32)
    assert tokens_of(tokenizer, window) == ["[CLS]", "?", "[SEP]", "[SEP]"] and len(window.starts) == 0


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"max_seq_length": 0}, "max_seq_length: found 0, expected 1 or more"),
        ({"max_query_length": 0}, "max_query_length: found 0, expected 1 or more"),
        ({"doc_stride": -1}, "doc_stride: found -1, expected 1 or more"),
        (
            {"max_seq_length": 9},
            "max_seq_length: question 'a' has 6 tokens, so 9 leave no room for its context; raise it, or set "
            "max_query_length, which is 64, to less",
        ),
    ],
)
def test_lengths_that_do_not_go_together(tokenizer, lengths, message):
    with pytest.raises(UsageError, match=message):
        make_squad_windows(
            [Question("a", "which word came back then ?", "x")], tokenizer, **{"max_seq_length": 32} | lengths
        )


# --- decoding --------------------------------------------------------------------------------------------------------


def all_spans(question, windows, starts, ends, max_answer_length):
    """Every span by brute force: text, place and score, best first."""
    spans = []
    for number, window in enumerate(windows):
        tokens = range(len(window.starts))
        for a, b in itertools.product(tokens, tokens):
            if a <= b < a + max_answer_length and window.has_most_context[a]:
                place = int(window.starts[a]), int(window.ends[b])
                shift = window.context_begin
                score = float(starts[number][a + shift]) + float(ends[number][b + shift])
                spans.append((score, number, a, b, question.context[slice(*place)], place))
    spans.sort(key=lambda span: (-span[0], *span[1:4]))
    best = {}
    for score, *_, text, place in spans:
        best.setdefault(text, (text, *place, score))
    return list(best.values())


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    words=st.integers(1, 40),
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([2, 5, 1000]),
    n_best_size=st.sampled_from([1, 3, 20]),
    max_answer_length=st.sampled_from([1, 4, 30]),
    null_threshold=st.sampled_from([None, -1.0, 0.0, 2.0]),
)
def test_candidates_are_the_best_of_all_spans(
    tokenizer, words, seed, levels, n_best_size, max_answer_length, null_threshold
):
    generator = np.random.default_rng(seed)
    questions = [
        Question(name, "which word ?", " ".join(generator.choice([*OTHERS, "unseen"], words))) for name in "ab"
    ]
    windows = make_squad_windows(questions, tokenizer, 24, doc_stride=5)
    # Few levels make many ties; more logits than tokens are padding.
    starts, ends = (generator.integers(0, levels, (len(windows), 24)).astype(np.float32) / 8 for _ in range(2))
    found = list(decode_answers(questions, windows, starts, ends, n_best_size, max_answer_length, null_threshold))
    assert [prediction.id for prediction in found] == ["a", "b"]
    for index, (question, prediction) in enumerate(zip(questions, found, strict=True)):
        mine = [i for i, window in enumerate(windows) if window.question_index == index]
        own = [windows[i] for i in mine]
        expected = all_spans(question, own, starts[mine], ends[mine], max_answer_length)[:n_best_size]
        texts = [(c.text, c.start, c.end, c.score) for c in prediction.candidates if c.text]
        assert [text[3] for text in texts] == [text[3] for text in expected]
        if n_best_size == 20:  # of fewer candidates all may have been spans of one word
            assert texts == expected
        assert prediction.best_text == expected[0][0]
        scores = np.array([c.score for c in prediction.candidates])
        assert (np.diff(scores) <= 0).all()
        np.testing.assert_allclose(
            [c.probability for c in prediction.candidates], np.exp(scores) / np.exp(scores).sum(), rtol=1e-12
        )
        null_score = min(float(starts[i][0] + ends[i][0]) for i in mine)
        if null_threshold is None:
            assert prediction.null_score_difference is None
            assert prediction.answer == prediction.candidates[0] and len(texts) == len(prediction.candidates)
        else:
            assert prediction.null_score_difference == null_score - expected[0][3]
            assert [c.score for c in prediction.candidates if not c.text] == [null_score]
            says_nothing = null_score - expected[0][3] > null_threshold
            assert prediction.answer.text == ("" if says_nothing else expected[0][0])
            assert prediction.answer in prediction.candidates


def test_between_equal_spans_the_first_window_start_and_end_win(tokenizer):
    question = Question("a", "?", " ".join(OTHERS))
    windows = make_squad_windows([question], tokenizer, 12, doc_stride=3)
    zeros = [np.zeros(12)] * len(windows)
    (prediction,) = decode_answers([question], windows, zeros, zeros, n_best_size=4, null_threshold=0.0)
    assert [c.text for c in prediction.candidates] == ["the", "the old", "the old was", "the old was seen", ""]
    assert prediction.answer.text == "the" and prediction.null_score_difference == 0.0
    (shuffled,) = decode_answers([question], windows[:1] + windows[:0:-1], zeros, zeros, 4, null_threshold=0.0)
    assert shuffled.answer == prediction.answer


def test_all_tokens_of_a_word_stand_for_it(tokenizer):
    question = Question("a", "?", "then xyzzy fell")
    (window,) = make_squad_windows([question], tokenizer, 32)
    logits = np.zeros(len(window.input_ids))
    logits[6] = 9.0  # the third of five pieces
    (prediction,) = decode_answers([question], [window], [logits], [logits], n_best_size=3)
    assert [(c.text, c.start, c.end) for c in prediction.candidates] == [
        ("xyzzy", 5, 10), ("then xyzzy", 0, 10), ("xyzzy fell", 5, 15)
    ]  # fmt: skip


def test_a_context_without_tokens_has_no_answer(tokenizer):
    question = Question("a", "?", "\u200b")
    windows = make_squad_windows([question], tokenizer, 32)
    for threshold in (None, 100.0):
        (prediction,) = decode_answers([question], windows, [np.ones(4)], [np.ones(4)], null_threshold=threshold)
        assert prediction.answer.text == prediction.best_text == "" and prediction.answer.probability == 1.0
        assert prediction.null_score_difference == (None if threshold is None else 2.0)


@pytest.mark.parametrize(("position", "value"), [(0, math.nan), (3, math.inf), (3, math.nan)])
def test_logits_that_are_not_finite(tokenizer, position, value):
    question = Question("a", "?", "then it fell")
    windows = make_squad_windows([question], tokenizer, 32)
    logits = np.zeros(8)
    logits[position] = value
    with pytest.raises(Diverged, match="question 'a': a logit is not finite, expected numbers; the training has div"):
        list(decode_answers([question], windows, [np.zeros(8)], [logits]))


@pytest.mark.parametrize("version", ["1.1", "2.0"])
@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece"])
def test_a_model_that_is_always_right_scores_100(request, tmp_path, tokenizer, version, kind):
    some_tokenizer = tokenizer if kind == "wordpiece" else request.getfixturevalue("pieces_tokenizer")
    data = read_squad(write_squad(tmp_path, "train", version))
    windows = make_squad_windows(data.questions, some_tokenizer, 20, 4, 4, for_training=True)
    assert len(windows) > len(data.questions)
    starts, ends = (
        [np.where(np.arange(20) == position, 5.0, 0.0) for position in (getattr(window, name) for window in windows)]
        for name in ("start_position", "end_position")
    )
    threshold = 0.0 if version == "2.0" else None
    predictions = list(decode_answers(data.questions, windows, starts, ends, null_threshold=threshold))
    gold = {question.id: [answer.text for answer in question.answers] for question in data.questions}
    texts = {prediction.id: prediction.answer.text for prediction in predictions}
    metrics = evaluate_v1(gold, texts) if version == "1.1" else evaluate_v2(gold, texts)
    assert metrics["f1"] == 100.0
    assert metrics["exact_match" if version == "1.1" else "exact"] == 100.0
