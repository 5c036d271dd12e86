"""NER: column files are read, every word has one label in one window, and entities are counted as conlleval does."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ner_files import WORDS, ner_lines, write_ner

from tf_bert.errors import Diverged, InputError, UsageError
from tf_bert.finetuning.ner import Entity, Sentence, find_entities, labels_of, read_ner, sentences_of
from tf_bert.finetuning.ner_tags import Tagged, ner_metrics, repair, tag_spans, to_iob2
from tf_bert.finetuning.ner_windows import make_ner_windows, word_tags
from tf_bert.tokenization.vocab import SPECIAL_TOKENS, Vocabulary
from tf_bert.tokenization.wordpiece import WordPieceTokenizer


@pytest.fixture
def file(tmp_path):
    """Writes text or bytes to x.txt."""

    def write(content):
        path = tmp_path / "x.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def words_and_tags(data):
    return [list(zip(sentence.words, sentence.tags, strict=True)) for sentence in data.sentences]


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_of_conll_2003(tmp_path):
    data = read_ner(write_ner(tmp_path, "train"))
    assert words_and_tags(data) == ner_lines("train") and data.scheme == "IOB2" and data.notes == ()
    first = data.sentences[0]
    assert first.text == " ".join(first.words)
    assert all(first.text.startswith(word, start) for word, start in zip(first.words, first.starts, strict=True))
    assert first.places[0] == f"{tmp_path}/train.txt: line 3" and first.places[1].endswith("line 4")
    assert labels_of(data.sentences) == ("O", "B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER")


EXPECTED = [[("Anna", "B-PER"), ("Berg", "I-PER"), ("fell", "O")], [("Oslo", "B-LOC")]]


@pytest.mark.parametrize(
    "content",
    [
        "Anna B-PER\nBerg I-PER\nfell O\n\nOslo B-LOC\n",
        "Anna\tB-PER\nBerg\tI-PER\nfell\tO\n\nOslo\tB-LOC",
        "\n \n\nAnna  NN   B-PER \nBerg NN I-PER\nfell V O\n \t\n\n\nOslo NN B-LOC\n\n\n",
        "-DOCSTART-\nAnna B-PER\nBerg I-PER\nfell O\n-DOCSTART- O\nOslo B-LOC\n",
        "Anna B-PER\r\nBerg I-PER\r\nfell O\r\n\r\nOslo B-LOC\r\n",
        b"\xef\xbb\xbfAnna B-PER\nBerg I-PER\nfell O\n\nOslo B-LOC\n",
    ],
    ids=["blanks", "tabs", "more columns and blanks", "documents", "windows", "byte order mark"],
)
def test_forms_of_one_file(file, content):
    assert words_and_tags(read_ner(file(content))) == EXPECTED


def test_a_column_by_its_name(file):
    path = file("word ner pos\nAnna B-PER NN\nBerg I-PER NN\nfell O V\n\nOslo B-LOC NN\n")
    assert words_and_tags(read_ner(path, tag_column="ner")) == EXPECTED


def test_words_are_taken_as_they_are(file):
    path = file("New York\tB-LOC\n\u00a0x\u2028y\tO\n10\u202f000\tO\n")
    assert read_ner(path).sentences[0].words == ("New York", "\u00a0x\u2028y", "10\u202f000")


def test_a_single_sentence_of_a_single_word(file):
    (sentence,) = read_ner(file("Oslo B-LOC")).sentences
    assert sentence == Sentence("Oslo", ("Oslo",), (0,), ("B-LOC",), (f"{file('Oslo B-LOC')}: line 1",))


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        ("", None, "holds no sentence, expected lines of a word and its tag, and an empty line between sentences"),
        ("\n\n", None, "holds no sentence"),
        ("-DOCSTART- -X- O\n", None, "holds no sentence"),
        ("word ner\n", "ner", "holds no sentence"),
        ("\nAnna\n", None, "line 2: found 1 column, expected a word and its tag with a blank or a tab between"),
        ("Anna NN B-PER\nfell O\n", None, "line 2: found 2 columns, expected 3 as in line 1; mend the line"),
        ("a\tO\n\tO\n", None, "line 2: the first column is empty, expected a word; mend the line or remove it"),
        ("a\tO\nb\t\n", None, "line 2: found the tag '', expected O, B-TYPE or I-TYPE; is it the right column?"),
        ("word pos\na O\n", "ner", "line 1: has no column 'ner'; found 'word', 'pos'; name one of these columns"),
        ("a O\nb PER\n", None, "line 2: found the tag 'PER', expected O, B-TYPE or I-TYPE; is it the right column?"),
        ("a O\nb B-\n", None, "line 2: found the tag 'B-', expected O, B-TYPE or I-TYPE"),
        ("a b-PER\n", None, "line 1: found the tag 'b-PER', expected O, B-TYPE or I-TYPE"),
        ("a S-PER\nb L-PER\n", None, "line 1: the tags in this file begin with L, S, which no scheme has together"),
        (
            "a B-PER\nb O\nc I-PER\n",
            None,
            "line 3: found I-PER after O, expected a tag that begins an entity, as elsewhere in the file; mend the tag",
        ),
        ("a B-PER\n\nb I-PER\n", None, "line 3: found I-PER at the beginning of a sentence, expected a tag that begi"),
        ("a S-PER\nb O\nc E-PER\n", None, "line 3: found E-PER after O, expected a tag that begins an entity"),
        (
            "a O\nZoë O\n".encode("latin-1"),
            None,
            "line 2: found byte 0xeb at column 3, expected UTF-8 text; convert the file, e.g. with iconv -f LATIN1",
        ),
    ],
)
def test_other_files_are_refused(file, content, column, message):
    with pytest.raises(InputError, match=f"^{file(content)}: {message}") as caught:
        read_ner(file(content), column)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"no\.txt: cannot be read: No such file or directory; expected a file with a"):
        read_ner(tmp_path / "no.txt")


def test_a_training_file_without_entities(file):
    with pytest.raises(InputError, match=r"x\.txt: line 2: from here on every tag is O, expected entities to learn fr"):
        labels_of(read_ner(file("\na O\nb O\n")).sentences)


# --- tags ------------------------------------------------------------------------------------------------------------

IOB2 = [["B-A", "I-A", "B-A", "O", "B-B"], ["O", "B-B", "B-A"]]


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB2", IOB2),
        ("IOB1", [["I-A", "I-A", "B-A", "O", "I-B"], ["O", "I-B", "I-A"]]),
        ("IOBES", [["B-A", "E-A", "S-A", "O", "S-B"], ["O", "S-B", "S-A"]]),
        ("BMES", [["B-A", "M-A", "S-A", "O", "S-B"], ["O", "S-B", "S-A"]]),
        ("BILOU", [["B-A", "L-A", "U-A", "O", "U-B"], ["O", "U-B", "U-A"]]),
    ],
)
def test_schemes_become_iob2_and_that_is_said(file, scheme, tags):
    assert to_iob2([Tagged(sentence, [""] * len(sentence)) for sentence in tags]) == (IOB2, scheme)
    path = file("\n".join("".join(f"w {tag}\n" for tag in sentence) for sentence in tags))
    data = read_ner(path)
    assert [list(sentence.tags) for sentence in data.sentences] == IOB2
    assert data.notes == (() if scheme == "IOB2" else (f"{path}: the tags are {scheme}; they are read as IOB2",))


@pytest.mark.parametrize(
    ("tags", "valid", "spans"),
    [
        (["I-A", "I-A"], ["B-A", "I-A"], [("A", 0, 1)]),
        (["B-A", "I-B", "I-B"], ["B-A", "B-B", "I-B"], [("A", 0, 0), ("B", 1, 2)]),
        (["B-A", "O", "I-A"], ["B-A", "O", "B-A"], [("A", 0, 0), ("A", 2, 2)]),
        (["B-A", "B-A", "I-A"], ["B-A", "B-A", "I-A"], [("A", 0, 0), ("A", 1, 2)]),
        (["B-x-y", "I-x-y", "I-x"], ["B-x-y", "I-x-y", "B-x"], [("x-y", 0, 1), ("x", 2, 2)]),
        ([], [], []),
    ],
)
def test_invalid_tags_are_read_as_conlleval_does(tags, valid, spans):
    assert repair(tags) == valid
    assert tag_spans(tags) == tag_spans(valid) == spans


def test_metrics_by_hand():
    gold = [["B-A", "I-A", "O", "B-B"], ["B-B", "O"]]
    predicted = [["B-A", "O", "O", "I-B"], ["B-B", "B-A"]]
    # A: none of two is right, one is missed. B: both are right.
    assert ner_metrics(gold, predicted).values == pytest.approx(
        {
            **{"precision": 2 / 4, "recall": 2 / 3, "f1": 2 * 2 / (4 + 3), "entities": 3},
            **{"precision/A": 0.0, "recall/A": 0.0, "f1/A": 0.0, "entities/A": 1},
            **{"precision/B": 1.0, "recall/B": 1.0, "f1/B": 1.0, "entities/B": 2},
        }
    )


@pytest.mark.parametrize(
    ("gold", "predicted", "notes"),
    [
        (["O"], ["O"], ["no sentence has an entity: recall and f1", "no entity is predicted: precision is undefined"]),
        (["O"], ["B-A"], ["no sentence has an entity: recall and f1 are undefined and reported as 0"]),
        (["B-A"], ["O"], ["no entity is predicted: precision is undefined and reported as 0"]),
    ],
)
def test_what_is_undefined_is_said(gold, predicted, notes):
    metrics = ner_metrics([gold], [predicted])
    assert [metrics.values[name] for name in ("precision", "recall", "f1")] == [0.0, 0.0, 0.0]
    assert metrics.values["entities"] == sum(tag != "O" for tag in gold)
    assert len(metrics.notes) == len(notes)
    assert all(note.startswith(start) for note, start in zip(metrics.notes, notes, strict=True))


TAGS = st.sampled_from(["O", "O", "B-A", "I-A", "B-B", "I-B", "B-C"])


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=8), min_size=1, max_size=6))
def test_metrics_are_counts_of_entities(sentences):
    def counted(part):
        """Entities, found by reading the letters of each word after the other."""
        found = Counter()
        for number, pairs in enumerate(sentences):
            begin = None
            tags = [pair[part] for pair in pairs] + ["O"]
            for word, tag in enumerate(tags):
                if begin is not None and (tag[0] != "I" or tag[2:] != tags[begin][2:]):
                    found[number, tags[begin][2:], begin, word - 1] += 1
                    begin = None
                if begin is None and tag != "O":
                    begin = word
        return found

    gold, predicted = counted(0), counted(1)
    right = (gold & predicted).total()
    metrics = ner_metrics(
        [[g for g, _ in pairs] for pairs in sentences], [[p for _, p in pairs] for pairs in sentences]
    )
    assert metrics.values["entities"] == gold.total()
    assert metrics.values["precision"] == pytest.approx(right / max(predicted.total(), 1))
    assert metrics.values["recall"] == pytest.approx(right / max(gold.total(), 1))
    assert metrics.values["f1"] == pytest.approx(2 * right / max(gold.total() + predicted.total(), 1))


# --- windows and answers ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    pieces = [*"abcdefghijklmnopqrstuvwxyz.-", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    words = [word.lower() for word in WORDS if word != "."]
    return WordPieceTokenizer(Vocabulary((*SPECIAL_TOKENS, *words, *pieces)), lower_case=True)


def sentence_of(*words_and_tags, place="x.txt: line "):
    words, tags = zip(*words_and_tags, strict=True)
    starts = tuple(sum(len(word) + 1 for word in words[:i]) for i in range(len(words)))
    return Sentence(" ".join(words), words, starts, tags, tuple(f"{place}{i}" for i in range(1, len(words) + 1)))


def test_a_window_by_hand(tokenizer):
    sentence = sentence_of(("Anna", "B-PER"), ("Xaver", "I-PER"), ("fell", "O"), ("\u200b", "O"), ("co-op", "B-ORG"))
    labels = ("O", "B-ORG", "B-PER", "I-PER")
    (window,), notes = make_ner_windows([sentence], tokenizer, 32, labels)
    tokens = [tokenizer.vocabulary.tokens[i] for i in window.input_ids]
    assert tokens == [
        *("[CLS]", "anna", "x", "##a", "##v", "##e", "##r", "fell", "[UNK]", "c", "##o", "-", "o", "##p", "[SEP]")
    ]
    assert window.word_positions.tolist() == [1, 2, 7, 8, 9]
    assert window.label_ids.tolist() == [0, 2, 3, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert window.label_weights.tolist() == [0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    for array in (window.input_ids, window.label_ids, window.word_positions):
        assert array.dtype == np.int32
    assert (window.sentence_index, window.first_word, notes) == (0, 0, ())


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.lists(st.sampled_from([*WORDS, "unbekannt", "\u00ad", "a-b-c"]), max_size=12), max_size=5),
    st.integers(3, 24),
)
def test_every_word_is_in_one_window_and_its_tag_comes_back(tokenizer, sentences, max_seq_length):
    generator = np.random.default_rng(0)
    labels = ("O", "B-A", "I-A", "B-B")
    tagged = []
    for words in sentences:
        tags = repair(generator.choice(labels, len(words)).tolist())
        tagged.append(sentence_of(*zip(words, tags, strict=True)) if words else Sentence("", (), ()))
    windows, _ = make_ner_windows(tagged, tokenizer, max_seq_length, labels)
    read: dict[tuple[int, int], list[str]] = {}
    for window in windows:
        assert len(window.input_ids) <= max_seq_length
        assert (
            window.input_ids[0] == tokenizer.vocabulary.cls_id and window.input_ids[-1] == tokenizer.vocabulary.sep_id
        )
        ends = [*window.word_positions[1:], len(window.input_ids) - 1]
        for word, (begin, end) in enumerate(zip(window.word_positions, ends, strict=True), window.first_word):
            read[window.sentence_index, word] = window.input_ids[begin:end].tolist()
            assert labels[window.label_ids[begin]] == tagged[window.sentence_index].tags[word]
    places = [(number, word) for number, words in enumerate(sentences) for word in range(len(words))]
    assert list(read) == places
    for number, word in places:
        alone = tokenizer.tokenize([sentences[number][word]]).to_list()[0] or [tokenizer.vocabulary.unk_id]
        assert read[number, word] == alone[: max_seq_length - 2]
    # Windows are as few as can be without cutting a word.
    for before, after in itertools.pairwise(windows):
        if before.sentence_index == after.sentence_index:
            fits = len(read[after.sentence_index, after.first_word]) + len(before.input_ids) <= max_seq_length
            assert not fits
    logits = []
    for window in windows:
        values = generator.uniform(-1.0, 0.0, (max_seq_length, len(labels)))  # also where nothing is read
        values[window.word_positions, window.label_ids[window.word_positions]] = 1.0
        logits.append(values)
    assert word_tags(tagged, windows, logits, labels) == [list(sentence.tags) for sentence in tagged]


def test_predicted_tags_are_made_valid_over_windows(tokenizer):
    sentence = sentence_of(("Anna", "O"), ("Berg", "O"), ("fell", "O"))
    windows, _ = make_ner_windows([sentence], tokenizer, 4)
    assert [window.first_word for window in windows] == [0, 2]
    inside = np.tile([0.0, 0.0, 1.0], (4, 1))
    assert word_tags([sentence], windows, [inside, inside], ("O", "B-A", "I-A")) == [["B-A", "I-A", "I-A"]]


def test_what_does_not_fit_is_said(tokenizer):
    words = ("came", "Donaudampfschiff", "to", "ab" * 30)
    sentences = [sentence_of(("fell", "O")), sentence_of(*((word, "O") for word in words))]
    windows, notes = make_ner_windows(sentences, tokenizer, 8)
    assert [len(window.input_ids) for window in windows] == [3, 3, 8, 3, 8]
    assert notes == (
        "x.txt: line 2: a sentence has more tokens than the 6 of a window and is cut here; such cuts: 3",
        "x.txt: line 2: the word 'Donaudampfschiff' has more tokens than the 6 of a window and keeps the first ones; "
        "such words: 2",
    )
    (raw,) = sentences_of(["ab" * 30], strip_accents=True)
    assert make_ner_windows([raw], tokenizer, 8).notes == (
        "sentence 1: the word 'abababababababababab'... has more tokens than the 6 of a window and keeps the first "
        "ones; such words: 1",
    )


def test_a_tag_that_training_does_not_have(tokenizer, file):
    train, dev = read_ner(file("Anna B-PER\n")), read_ner(file("to O\nOslo B-LOC\n"))
    with pytest.raises(
        InputError,
        match=r"x\.txt: line 2: found the tag 'B-LOC', which the training file does not have; expected one of 'O', "
        "'B-PER'; mend the tag, or add such words to the training file",
    ):
        make_ner_windows(dev.sentences, tokenizer, 8, labels_of(train.sentences))


def test_no_room_for_a_word(tokenizer):
    with pytest.raises(UsageError, match="max_seq_length: found 2, expected 3 or more"):
        make_ner_windows([], tokenizer, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite(tokenizer, value):
    sentence = sentence_of(("Anna", "O"), ("fell", "O"))
    windows, _ = make_ner_windows([sentence], tokenizer, 8)
    logits = np.zeros((4, 3))
    logits[2, 1] = value
    with pytest.raises(Diverged, match=r"x\.txt: line 1: a logit of this sentence is not finite, expected numbers"):
        word_tags([sentence], windows, [logits], ("O", "B-A", "I-A"))


def test_entities_of_raw_text_have_the_places_of_their_characters(tokenizer):
    texts = ["Zoë’s  friend José-María\u00a0(東京).", "", "\u200b \U0001f600 Oslo\0!"]
    sentences = sentences_of(texts, strip_accents=True)
    assert [sentence.words for sentence in sentences] == [
        ("Zoë", "’", "s", "friend", "José", "-", "María", "(", "東", "京", ")", "."),
        (),
        ("\U0001f600", "Oslo\0", "!"),
    ]
    for text, sentence in zip(texts, sentences, strict=True):
        assert sentence.text == text and sentence.tags == ()
        assert all(text.startswith(word, start) for word, start in zip(sentence.words, sentence.starts, strict=True))
    tags = ["B-PER", "O", "O", "O", "B-PER", "I-PER", "I-PER", "O", "I-LOC", "I-LOC", "O", "O"]
    assert find_entities(sentences[0], tags) == [
        Entity("PER", 0, 0, "Zoë", 0, 3),
        Entity("PER", 4, 6, "José-María", 14, 24),
        Entity("LOC", 8, 9, "東京", 26, 28),
    ]
    windows, _ = make_ner_windows(sentences, tokenizer, 32)
    assert [window.sentence_index for window in windows] == [0, 2]


def test_entities_of_a_file_have_places_in_the_joined_words(file):
    (sentence,) = read_ner(file("to O\nNew B-LOC\nDelhi I-LOC\n, O\n")).sentences
    assert find_entities(sentence, sentence.tags) == [Entity("LOC", 1, 2, "New Delhi", 3, 12)]
