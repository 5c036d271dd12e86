"""Text that benchmarks read, and tf-models' records of it."""

import functools
import random
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tf_bert.config import CorpusConfig, VocabTrainConfig
from tf_bert.corpus.reader import read_documents
from tf_bert.corpus.sentences import SentenceSplitter
from tf_bert.tokenization.vocab import train_vocabulary

EXCERPT = (
    Path(find_spec("gensim").origin).parent
    / "test"
    / "test_data"
    / "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
)
"""The real dump excerpt: 206 pages, 106 articles."""


_WIKITEXT_TITLE = re.compile(r"^ = [^=]+ = *$", re.MULTILINE)


def read_texts(source: Path) -> list[str]:
    """A corpus's documents; of WikiText's files (`*.tokens`), in which blank lines are between paragraphs, articles."""
    if source.suffix == ".tokens":
        articles = _WIKITEXT_TITLE.split(source.read_text(encoding="utf-8"))[1:]
        return [re.sub(r"\n\s*\n", "\n", article.strip()) for article in articles]
    return [document.text for document in read_documents(CorpusConfig(input=str(source)))]


@functools.cache
def _splitter() -> SentenceSplitter:
    return SentenceSplitter(CorpusConfig(input="unused"))


def sentences_of(text: str) -> list[str]:
    """A document's sentences."""
    return _splitter().split(text)


def write_inputs(texts: list[str], directory: Path) -> tuple[Path, Path]:
    """A text file with a sentence a line and blank lines between documents, and a vocabulary of 8,000 tokens."""
    sentences, vocab = directory / "sentences.txt", directory / "vocab.txt"
    sentences.write_text("\n\n".join("\n".join(sentences_of(text)) for text in texts), encoding="utf-8")
    train_vocabulary(lambda: texts, VocabTrainConfig(input="unused", vocab_size=8000)).save(vocab)
    return sentences, vocab


def peer_records(sentences: Path, vocab: Path, output: Path, length: int, predictions: int, **settings: Any) -> float:
    """Writes tf-models' masked, padded records.

    Args:
      sentences, vocab: from `write_inputs`.
      output: the TFRecord file.
      length, predictions: of a record.
      **settings: `passes` (1) over the text, `short_seq_prob` (0.1), `whole_words` (False).

    Returns:
      Which share of all tokens is no padding.
    """
    from official.nlp.data import create_pretraining_data as peer
    from official.nlp.tools.tokenization import FullTokenizer

    tokenizer = FullTokenizer(str(vocab), do_lower_case=True)
    instances = peer.create_training_instances(
        [str(sentences)],
        tokenizer,
        peer.get_processor_text_fn(False, True),
        length,
        settings.get("passes", 1),
        settings.get("short_seq_prob", 0.1),
        0.15,
        predictions,
        random.Random(1),
        do_whole_word_mask=settings.get("whole_words", False),
    )
    peer.write_instance_to_example_files(instances, tokenizer, length, predictions, [str(output)], False, False)
    return sum(len(instance.tokens) for instance in instances) / (length * len(instances))
