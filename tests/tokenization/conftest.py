"""Vocabularies trained on the real dump excerpt, and real text."""

import pytest

from tf_bert.config import CorpusConfig, VocabTrainConfig
from tf_bert.corpus.reader import read_documents
from tf_bert.tokenization.vocab import train_vocabulary


@pytest.fixture(scope="session")
def documents(wikipedia_dump):
    return [d.text for d in read_documents(CorpusConfig(input=str(wikipedia_dump)))]


@pytest.fixture(scope="session", params=[True, False], ids=["uncased", "cased"])
def lower_case(request):
    return request.param


@pytest.fixture(scope="session")
def vocabulary(documents, lower_case):
    """8,000 tokens."""
    config = VocabTrainConfig(input="unused", vocab_size=8000, lower_case=lower_case, output="trained")
    return train_vocabulary(lambda: documents, config)
