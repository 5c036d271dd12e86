"""Token ids equal those of two independent implementations, on real text and on text meant to break it."""

import json
import re
import unicodedata

import pytest
import tensorflow as tf
from hostile_texts import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from portable_ops import PORTABLE_TEXT_OPS

from tf_bert.errors import InputError
from tf_bert.tokenization.tokenizer import load_tokenizer, save_tokenizer
from tf_bert.tokenization.vocab import Vocabulary
from tf_bert.tokenization.wordpiece import WordPieceTokenizer

reference = pytest.importorskip(
    "official.nlp.tools.tokenization", reason="tf-models-official (extra `interop`) is not installed"
)


class Original:
    """The original algorithm, as tf-models keeps it; its limit of characters a word set back to the original 200."""

    def __init__(self, vocabulary: Vocabulary, lower_case: bool, tmp_path):
        path = tmp_path / "vocab.txt"
        vocabulary.save(path)
        self._tokenizer = reference.FullTokenizer(str(path), do_lower_case=lower_case)
        self._tokenizer.wordpiece_tokenizer.max_input_chars_per_word = 200

    def ids(self, text: str) -> list[int]:
        return self._tokenizer.convert_tokens_to_ids(self._tokenizer.tokenize(text))


@pytest.fixture(scope="session")
def original(vocabulary, lower_case, tmp_path_factory):
    return Original(vocabulary, lower_case, tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="session", params=[False, True], ids=["fast", "portable"])
def tokenize(request, vocabulary, lower_case):
    """Lists of ids for a list of texts, through a `tf.function`."""
    tokenizer = WordPieceTokenizer(vocabulary, lower_case, portable=request.param)
    graph = tf.function(tokenizer.tokenize, input_signature=[tf.TensorSpec([None], tf.string)])
    return lambda texts: graph(tf.constant(texts, tf.string)).to_list()


def lines_of(documents):
    return [line for document in documents for line in document.split("\n")]


def assert_all_equal(texts, found, expected_of):
    different = [
        (text, ids, expected_of(text)) for text, ids in zip(texts, found, strict=True) if ids != expected_of(text)
    ]
    assert different == []


def test_every_line_of_the_real_excerpt_equals_the_original(documents, tokenize, original):
    lines = lines_of(documents)
    assert len(lines) > 5000
    assert_all_equal(lines, tokenize(lines), original.ids)


def test_every_line_of_wikitext_equals_the_original(shared_dir, tokenize, original):
    text = (shared_dir / "wikitext" / "wiki.valid.tokens").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line.strip()]
    assert_all_equal(lines, tokenize(lines), original.ids)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_equals_the_original(text, tokenize, original):
    assert tokenize([text, "next"]) == [original.ids(text), original.ids("next")]


# Characters that Python's Unicode tables know: TensorFlow Text's are newer, and call some of the others punctuation.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"])


def test_random_text_equals_the_original(tokenize, original):
    @settings(max_examples=60, derandomize=True, deadline=None, database=None)
    @given(st.lists(st.text(CHARACTERS, max_size=30), min_size=20, max_size=40))
    def check(texts):
        assert_all_equal(texts, tokenize(texts), original.ids)

    check()


def test_real_and_hostile_text_equals_hugging_face(documents, tokenize, vocabulary, lower_case, tmp_path):
    """Left out is where that library itself differs from the original.

    These are words past 100 characters, final sigma, private-use characters, and special-token strings, which it does
    not take for text.
    """
    from tokenizers import BertWordPieceTokenizer

    vocabulary.save(tmp_path / "vocab.txt")
    peer = BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=lower_case)

    def comparable(text):
        return (
            not re.search(r"\S{100}|[Σςσ]|\[[A-Z]+\]", text)
            and not any(unicodedata.category(c) in ("Co", "Zl", "Zp") for c in text)
            and not set(text) & set("\x85\x0b\x0c")
        )

    texts = [text for text in [*lines_of(documents), *HOSTILE] if comparable(text)]
    assert len(texts) > 0.9 * len(lines_of(documents))
    assert_all_equal(texts, tokenize(texts), lambda text: peer.encode(text, add_special_tokens=False).ids)


def test_special_token_strings_in_a_text_stay_text(tokenize, vocabulary):
    special = {vocabulary.pad_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id}
    (ids,) = tokenize(["[MASK] and [CLS] and [SEP] and [PAD]"])
    assert not special & set(ids)


def test_bytes_that_are_not_utf8_are_left_out_by_the_portable_tokenizer(vocabulary, lower_case):
    tokenizer = WordPieceTokenizer(vocabulary, lower_case, portable=True)
    broken, whole = tokenizer.tokenize(tf.constant([b"some\xff te\xc3xt \xe2\x82", b"some text "])).to_list()
    assert broken == whole


def test_empty_batches_and_batches_of_empty_texts(tokenize):
    assert tokenize([]) == []
    assert tokenize(["", " ", "\u200b"]) == [[], [], []]


def test_the_portable_graph_holds_only_what_every_server_links(vocabulary, lower_case):
    tokenizer = WordPieceTokenizer(vocabulary, lower_case, portable=True)
    graph = tf.function(tokenizer.tokenize, input_signature=[tf.TensorSpec([None], tf.string)])
    definition = graph.get_concrete_function().graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    functions = {function.signature.name for function in definition.library.function}
    used = {node.op for node in nodes} - functions
    core = {name for name in dir(tf.raw_ops) if not name.startswith("_")}
    assert used - core <= PORTABLE_TEXT_OPS and used & PORTABLE_TEXT_OPS
    fast = tf.function(WordPieceTokenizer(vocabulary, lower_case).tokenize, input_signature=graph.input_signature)
    nodes_of_fast = {node.op for node in fast.get_concrete_function().graph.as_graph_def().node}
    assert nodes_of_fast - core - PORTABLE_TEXT_OPS, "the check would not see an operation that is not portable"


def test_a_saved_tokenizer_opens_again_with_its_case(vocabulary, lower_case, tmp_path):
    tokenizer = WordPieceTokenizer(vocabulary, lower_case)
    save_tokenizer(tmp_path, vocabulary, lower_case)
    opened = load_tokenizer(tmp_path)
    text = tf.constant(["Some Text, Übung"])
    assert opened.lower_case == lower_case
    assert opened.tokenize(text).to_list() == tokenizer.tokenize(text).to_list()


@pytest.mark.parametrize("strip_accents", [False, True])
def test_case_and_accents_are_settings_of_their_own(strip_accents, tmp_path):
    from tokenizers import BertWordPieceTokenizer

    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "über", "uber", "Über", "Uber", "cafe", "café")
    texts = ["Über Uber über", "CAFÉ cafe\u0301 Cafe"]
    for lower_case in (False, True):
        save_tokenizer(tmp_path, Vocabulary(tokens), lower_case, strip_accents)
        peer = BertWordPieceTokenizer(
            str(tmp_path / "vocab.txt"), lowercase=lower_case, strip_accents=strip_accents, clean_text=True
        )
        expected = [peer.encode(text, add_special_tokens=False).ids for text in texts]
        assert load_tokenizer(tmp_path).tokenize(tf.constant(texts)).to_list() == expected


def test_a_tokenizer_json_stands_for_the_other_files(tmp_path, vocabulary, lower_case):
    from tokenizers import BertWordPieceTokenizer

    vocabulary.save(tmp_path / "vocab.txt")
    BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=lower_case).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "tokenizer_config.json").write_text("{}")
    opened = load_tokenizer(tmp_path)
    assert opened.vocabulary.tokens == vocabulary.tokens
    assert (opened.lower_case, opened.strip_accents) == (lower_case, lower_case)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"model": {"type": "BPE", "vocab": {"a": 0}}},
            r"tokenizer.json: holds no WordPiece vocabulary; expected one, or",
        ),
        ({"model": {"type": "WordPiece", "vocab": {"a": 1}}}, r"tokenizer.json: holds no WordPiece vocabulary"),
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"normalizer": {"type": "BertNormalizer"}, **content}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    with pytest.raises(InputError, match=message):
        load_tokenizer(tmp_path)


def test_ids_become_readable_text(vocabulary, lower_case):
    tokenizer = WordPieceTokenizer(vocabulary, lower_case)
    (ids,) = tokenizer.tokenize(tf.constant(["unbelievableness is a word"])).to_list()
    assert len(ids) > 4
    assert tokenizer.to_text(ids) == "unbelievableness is a word"


@pytest.mark.parametrize(
    ("settings_text", "message"),
    [
        ("{}", r"tokenizer_config.json: do_lower_case is None, expected true or false; add it"),
        ("[]", r"tokenizer_config.json: do_lower_case is None"),
        ("{", r"tokenizer_config.json: is not valid JSON"),
        (
            json.dumps({"do_lower_case": True, "strip_accents": "no"}),
            r"tokenizer_config.json: strip_accents is 'no', expected true, false or null",
        ),
        (
            json.dumps({"do_lower_case": True, "tokenize_chinese_chars": False}),
            r"tokenizer_config.json: tokenize_chinese_chars is False, expected True, as the original BERT tokenizer d",
        ),
    ],
)
def test_settings_that_this_tokenizer_does_not_follow_are_refused(tmp_path, vocabulary, settings_text, message):
    vocabulary.save(tmp_path / "vocab.txt")
    (tmp_path / "tokenizer_config.json").write_text(settings_text)
    with pytest.raises(InputError, match=message):
        load_tokenizer(tmp_path)
