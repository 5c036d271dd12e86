"""Sentences equal those of the library as it comes, though its pattern of dashes and ellipses is replaced."""

import punkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_bert.config import CorpusConfig
from tf_bert.corpus.reader import read_documents
from tf_bert.corpus.sentences import SentenceSplitter


@pytest.mark.parametrize("language", ["english", "german", "french"])
def test_a_whole_dump_is_split_as_by_the_library(wikipedia_dump, language):
    config = CorpusConfig(input=str(wikipedia_dump), language=language)
    splitter, library = SentenceSplitter(config), punkt.tokenizer_for(language)
    lines = [line for document in read_documents(config) for line in document.text.split("\n")][::5]
    assert len(lines) > 2000
    assert [splitter.split(line) for line in lines] == [library.tokenize(line) for line in lines]


@settings(max_examples=300)
@given(st.text("ab B.-?!\u2026\u00a0", max_size=60))
def test_runs_of_punctuation_are_split_as_by_the_library(line):
    splitter, library = SentenceSplitter(CorpusConfig(input="x")), punkt.tokenizer_for("english")
    assert splitter.split(line) == library.tokenize(line.strip())
