"""Vocabularies: training, files, and what is refused."""

import hashlib
import subprocess
import sys

import pytest

from tf_bert.config import VocabTrainConfig
from tf_bert.errors import InputError
from tf_bert.tokenization.vocab import SPECIAL_TOKENS, Vocabulary, train_vocabulary

GOOD = [*SPECIAL_TOKENS, "a", "##b", "\u2028", "word"]


def test_special_tokens_come_first_and_the_size_is_as_asked(vocabulary):
    assert vocabulary.tokens[:5] == SPECIAL_TOKENS
    ids = (vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id)
    assert ids == (0, 1, 2, 3, 4)
    assert len(vocabulary) == 8000


def test_the_vocabulary_has_the_case_that_was_asked_for(vocabulary, lower_case):
    has_capitals = any(token != token.lower() for token in vocabulary.tokens[5:])
    assert has_capitals != lower_case
    assert ("american" if lower_case else "American") in vocabulary.tokens


_TRAIN = """
import sys
from tf_bert.config import VocabTrainConfig
from tf_bert.corpus.reader import read_documents
from tf_bert.tokenization.vocab import train_vocabulary
config = VocabTrainConfig(input=sys.argv[1], vocab_size=1500)
print(train_vocabulary(lambda: (d.text for d in read_documents(config)), config).sha256)
"""


def test_equal_text_gives_equal_bytes_in_every_process(wikipedia_dump):
    runs = [
        subprocess.run([sys.executable, "-c", _TRAIN, str(wikipedia_dump)], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    assert len({run.stdout for run in runs}) == 1 and len(runs[0].stdout.strip()) == 64


def test_rare_pairs_are_not_merged_and_a_small_corpus_gives_a_small_vocabulary():
    texts = ["aaa bbb aaa ccc"]
    config = VocabTrainConfig(input="unused", vocab_size=100, min_frequency=2)
    tokens = train_vocabulary(lambda: texts, config).tokens
    assert "aaa" in tokens and "bbb" not in tokens and len(tokens) < 20


def test_the_rarest_characters_go_first():
    texts = ["aaaa bbb cc d"]
    config = VocabTrainConfig(input="unused", vocab_size=100, limit_alphabet=3)
    tokens = train_vocabulary(lambda: texts, config).tokens
    assert {"a", "b", "c"} <= set(tokens) and "d" not in tokens


def test_a_file_comes_back_with_the_same_ids_and_hash(tmp_path):
    path = tmp_path / "vocab.txt"
    Vocabulary(tuple(GOOD)).save(path)
    loaded = Vocabulary.load(path)
    assert loaded.tokens == tuple(GOOD) and len(loaded) == len(GOOD)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_windows_line_ends_and_a_missing_last_one_change_nothing(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join(GOOD).encode())
    assert Vocabulary.load(path).sha256 == Vocabulary(tuple(GOOD)).sha256


def test_a_released_vocabulary_loads(tmp_path):
    """The layout of google-research/bert: [PAD] first, unused rows, the other special tokens at 100 to 103."""
    path = tmp_path / "vocab.txt"
    unused = [f"[unused{i}]" for i in range(99)]
    path.write_text("\n".join(["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##s"]) + "\n")
    loaded = Vocabulary.load(path)
    assert (loaded.unk_id, loaded.cls_id, loaded.sep_id, loaded.mask_id, len(loaded)) == (100, 101, 102, 103, 106)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"vocab.txt: no line is \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]; expected a BERT vocabulary"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n", r"vocab.txt: no line is \[MASK\]; expected"),
        ("\n".join([*GOOD, "a"]).encode(), r"vocab.txt: lines 6 and 10 are both 'a'; expected every token once"),
        ("\n".join([*GOOD, "", "b"]).encode(), r"vocab.txt: line 10 holds '', expected one token; remove the line"),
        ("\n".join([*GOOD, "b\rc"]).encode(), r"vocab.txt: line 10 holds 'b\\rc', expected one token"),
        ("\n".join(GOOD).encode() + b"\n\xff\n", r"vocab.txt: line 10 is not UTF-8 \(byte 0xff\)"),
    ],
)
def test_what_is_no_vocabulary_is_refused(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Vocabulary.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent.txt: cannot be read: No such file.*`tf-bert vocab train` writes it"):
        Vocabulary.load(tmp_path / "absent.txt")
