"""Words keep their places: cut out of the text and tokenized one by one they give the ids of the text."""

import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from hostile_texts import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from portable_ops import PORTABLE_TEXT_OPS
from test_wordpiece import CHARACTERS, lines_of

from tf_bert.config import VocabTrainConfig
from tf_bert.tokenization.sentencepiece import SentencePieceTokenizer, train_sentencepiece
from tf_bert.tokenization.tokenizer import load_tokenizer
from tf_bert.tokenization.vocab import Vocabulary
from tf_bert.tokenization.wordpiece import WordPieceTokenizer
from tf_bert.tokenization.words import split_words, tokenize_words

SIGMAS = "Σσς"


@pytest.fixture(scope="session", params=[False, True], ids=["fast", "portable"])
def tokenizer(request, vocabulary, lower_case):
    return WordPieceTokenizer(vocabulary, lower_case, portable=request.param)


@pytest.fixture(scope="session")
def basic(lower_case):
    """The first half of the original tokenizer, which gives words."""
    reference = pytest.importorskip(
        "official.nlp.tools.tokenization", reason="tf-models-official (extra `interop`) is not installed"
    )
    return reference.BasicTokenizer(do_lower_case=lower_case).tokenize


def assert_words_are_exact(tokenizer, texts):
    """Every text's ids, places and words, one word at a time."""
    batch = tf.constant(texts, tf.string)
    words, starts, ends = (part.to_list() for part in split_words(batch, tokenizer.strip_accents))
    ids, word_index, token_starts, token_ends = (part.to_list() for part in tokenize_words(tokenizer, batch))
    assert ids == tokenizer.tokenize(batch).to_list()
    alone = iter(tokenizer.tokenize(tf.constant([word for row in words for word in row], tf.string)).to_list())
    for i, text in enumerate(texts):
        raw = text.encode()
        assert words[i] == [raw[a:b].replace(b"\0", b"\1") for a, b in zip(starts[i], ends[i], strict=True)]
        assert all(a < b for a, b in zip(starts[i], ends[i], strict=True))
        assert all(b <= a for b, a in zip(ends[i], starts[i][1:], strict=False))
        by_word = [next(alone) for _ in words[i]]
        assert all(by_word)
        index = [k for k, ids in enumerate(by_word) for _ in ids]
        assert word_index[i] == index
        assert token_starts[i] == [starts[i][k] for k in index]
        assert token_ends[i] == [ends[i][k] for k in index]
        if not set(text) & set(SIGMAS):
            assert ids[i] == [token for tokens in by_word for token in tokens]


def test_words_of_real_lines(documents, tokenizer):
    assert_words_are_exact(tokenizer, lines_of(documents)[::6])


def test_words_of_wikitext(shared_dir, tokenizer):
    lines = (shared_dir / "wikitext" / "wiki.valid.tokens").read_text(encoding="utf-8").split("\n")
    assert_words_are_exact(tokenizer, lines[::6])


def test_words_of_hostile_text(tokenizer):
    assert_words_are_exact(tokenizer, HOSTILE)


def test_words_of_random_text(tokenizer):
    @settings(max_examples=30, derandomize=True, deadline=None, database=None)
    @given(st.lists(st.text(max_size=30), min_size=10, max_size=20))
    def check(texts):
        assert_words_are_exact(tokenizer, texts)

    check()


def test_words_are_those_of_the_original(documents, lower_case, basic):
    @settings(max_examples=30, derandomize=True, deadline=None, database=None)
    @given(st.lists(st.text(CHARACTERS.filter(lambda c: c not in SIGMAS), max_size=30), min_size=10, max_size=20))
    def check(texts):
        for text, words in zip(texts, split_words(tf.constant(texts), lower_case).words.to_list(), strict=True):
            alone = [basic(word.decode()) for word in words]
            assert [len(words_of_word) for words_of_word in alone] == [1] * len(words)
            assert [word for (word,) in alone] == basic(text)

    check()
    lines = [line for line in [*lines_of(documents)[::10], *HOSTILE] if not set(line) & set(SIGMAS)]
    for line, words in zip(lines, split_words(tf.constant(lines), lower_case).words.to_list(), strict=True):
        assert [word for part in words for word in basic(part.decode())] == basic(line)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("lower_case", [False, True])
@pytest.mark.parametrize("strip_accents", [False, True])
def test_every_character_between_two_letters(portable, lower_case, strip_accents):
    """Which of them are borders differs between the fast tokenizer and the portable one, and changes with accents."""
    vocabulary = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##b"))
    tokenizer = WordPieceTokenizer(vocabulary, lower_case, portable, strip_accents)
    characters = [chr(c) for c in range(0x20000) if unicodedata.category(chr(c)) not in ("Cs", "Lo", "Co")]
    batch = tf.constant([f"a{c}b" for c in characters])
    tokens, words = tokenize_words(tokenizer, batch), split_words(batch, strip_accents)
    alone = tokenizer.tokenize(words.words.flat_values)
    assert tokens.ids.flat_values.numpy().tolist() == alone.flat_values.numpy().tolist()
    np.testing.assert_array_equal(tokens.starts.flat_values, tf.gather(words.starts.flat_values, alone.value_rowids()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it\u00ad's a\u200db", ["it\u00ad", "'", "s", "a\u200db"]),
        ("form\x0cfeed next\x85line ver\x0btical nu\0ll", ["form\x0cfeed", "next\x85line", "ver\x0btical", "nu\1ll"]),
        ("a \u200d b \ufffd", ["a", "b"]),
        ("no\u00a0break\u2028line", ["no", "break", "line"]),
        ("中文a", ["中", "文", "a"]),
        ("a,\u0301b", ["a", ",", "\u0301b"]),
    ],
)
def test_what_the_tokenizer_removes_is_no_border(text, expected):
    for strip_accents in (False, True):
        (words,) = split_words(tf.constant([text]), strip_accents).words.to_list()
        assert [word.decode() for word in words] == expected


def test_an_accent_on_punctuation_makes_a_border_only_where_accents_go():
    text = tf.constant(["a≠b e\u0301 \u0301"])
    assert [w.decode() for w in split_words(text, strip_accents=True).words.to_list()[0]] == ["a", "≠", "b", "e\u0301"]
    assert [w.decode() for w in split_words(text, strip_accents=False).words.to_list()[0]] == [
        *("a≠b", "e\u0301", "\u0301")
    ]


def test_a_capital_sigma_is_lowered_in_its_text():
    vocabulary = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ας", "ασ", ".", "β"))
    tokenizer = WordPieceTokenizer(vocabulary, lower_case=True)
    tokens = tokenize_words(tokenizer, tf.constant(["ΑΣ.Β ΑΣ"]))
    assert [vocabulary.tokens[i] for i in tokens.ids.to_list()[0]] == ["ασ", ".", "β", "ας"]
    assert tokens.starts.to_list() == [[0, 4, 5, 8]] and tokens.ends.to_list() == [[4, 5, 7, 12]]


def test_punctuation_that_only_the_fast_tokenizer_knows():
    vocabulary = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"))
    text = tf.constant(["b a", "b a\u1b4eb b", ""])
    fast = tokenize_words(WordPieceTokenizer(vocabulary, lower_case=True), text)
    assert fast.ids.to_list() == [[6, 5], [6, 5, 1, 6, 6], []]
    assert fast.word_index.to_list() == [[0, 1], [0, 1, 1, 1, 2], []]
    assert fast.starts.to_list() == [[0, 2], [0, 2, 2, 2, 8], []]
    portable = tokenize_words(WordPieceTokenizer(vocabulary, lower_case=True, portable=True), text)
    assert portable.word_index.to_list() == [[0, 1], [0, 1, 2], []]


def test_empty_batches_and_batches_of_empty_texts(tokenizer):
    for texts in ([], ["", " ", "\u200b"]):
        batch = tf.constant(texts, tf.string)
        assert all(part.to_list() == [[] for _ in texts] for part in split_words(batch, tokenizer.strip_accents))
        assert all(part.to_list() == [[] for _ in texts] for part in tokenize_words(tokenizer, batch))


def test_the_graph_gives_the_same_with_operations_that_every_server_links(vocabulary, lower_case):
    tokenizer = WordPieceTokenizer(vocabulary, lower_case, portable=True)
    graph = tf.function(
        lambda texts: (tokenize_words(tokenizer, texts), split_words(texts, lower_case)),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    batch = tf.constant(HOSTILE)
    for ours, eager in zip(
        graph(batch), (tokenize_words(tokenizer, batch), split_words(batch, lower_case)), strict=True
    ):
        assert [part.to_list() for part in ours] == [part.to_list() for part in eager]
    definition = graph.get_concrete_function().graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    used = {node.op for node in nodes} - {function.signature.name for function in definition.library.function}
    core = {name for name in dir(tf.raw_ops) if not name.startswith("_")}
    assert used - core == PORTABLE_TEXT_OPS - {"CaseFoldUTF8"} - (set() if lower_case else {"NormalizeUTF8"})


# --- SentencePiece --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pieces(documents, lower_case, tmp_path_factory):
    path = tmp_path_factory.mktemp("pieces")
    config = VocabTrainConfig(
        input="unused", kind="sentencepiece", output="x.model", vocab_size=2000, lower_case=lower_case
    )
    vocabulary = train_sentencepiece(documents[::4], config)
    (path / "spiece.model").write_bytes(vocabulary.model)
    (path / "tokenizer_config.json").write_text(f'{{"do_lower_case": {str(lower_case).lower()}}}')
    return load_tokenizer(path)


def assert_pieces_lie_in_their_words(tokenizer: SentencePieceTokenizer, texts):
    batch = tf.constant(texts)
    tokens = tokenize_words(tokenizer, batch)
    assert tokens.ids.to_list() == tokenizer.tokenize(batch).to_list()
    for text, index, starts, ends in zip(texts, *(part.to_list() for part in tokens[1:]), strict=True):
        assert index == sorted(index) and starts == sorted(starts) and ends == sorted(ends)
        for start, end in zip(starts, ends, strict=True):
            word = text.encode()[start:end].decode()  # a place inside of a character could not be decoded
            assert word and word.strip(" ") == word


def test_pieces_of_real_hostile_and_random_text(documents, pieces):
    assert_pieces_lie_in_their_words(pieces, lines_of(documents)[::8])
    assert_pieces_lie_in_their_words(pieces, HOSTILE)

    @settings(max_examples=30, derandomize=True, deadline=None, database=None)
    @given(st.lists(st.text(max_size=30), min_size=5, max_size=10))
    def check(texts):
        assert_pieces_lie_in_their_words(pieces, texts)

    check()


def test_pieces_of_plain_text_are_at_the_words_they_spell(pieces):
    text = "  The unbelievable  city (of Paris)."
    tokens = tokenize_words(pieces, tf.constant(["one", text]))
    spelled: dict[tuple[int, str], str] = {}
    for token, word, start, end in zip(*(part.to_list()[1] for part in tokens), strict=True):
        place = (word, text[start:end])
        spelled[place] = spelled.get(place, "") + pieces.vocabulary.tokens[token].removeprefix("▁")
    words = ["The", "unbelievable", "city", "(", "of", "Paris", ")."]  # the last piece takes two words
    assert list(spelled) == list(enumerate(words))
    assert list(spelled.values()) == [word.lower() if pieces.lower_case else word for word in words]


def test_of_a_character_that_becomes_several_each_is_at_its_word(pieces):
    tokens = tokenize_words(pieces, tf.constant(["x Ⅷ y…"]))
    starts, ends = tokens.starts.to_list()[0], tokens.ends.to_list()[0]
    assert set(zip(starts, ends, strict=True)) == {(0, 1), (2, 5), (6, 7), (7, 10)}
