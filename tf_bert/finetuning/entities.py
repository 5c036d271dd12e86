"""Entities in sentences (NER, files in columns as at CoNLL)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, ClassVar

import numpy as np

from tf_bert.config import BertConfig
from tf_bert.finetuning.family import Outputs
from tf_bert.finetuning.files_of_splits import find_split_file
from tf_bert.finetuning.metrics import Metrics
from tf_bert.finetuning.ner import Sentence, find_entities, labels_of, read_ner, sentences_of
from tf_bert.finetuning.ner_tags import ner_metrics
from tf_bert.finetuning.ner_windows import NerWindow, make_ner_windows, word_tags
from tf_bert.finetuning.objectives import TokenObjective
from tf_bert.finetuning.packing import Encoded
from tf_bert.finetuning.tables import read_lines
from tf_bert.models.classification import BertForTokenClassification
from tf_bert.tokenization.tokenizer import Tokenizer

_FILES = {
    "train": ("train.txt", "train.tsv", "train.conll", "eng.train"),
    "dev": ("dev.txt", "dev.tsv", "dev.conll", "valid.txt", "eng.testa"),
    "test": ("test.txt", "test.tsv", "test.conll", "eng.testb"),
}


@dataclass(frozen=True)
class EntityFamily:
    """A `Family` of sentences whose words are tagged.

    Args:
      labels: the tags, O first.
      tag_column: name of the tags' column, see `read_ner`.
    """

    labels: tuple[str, ...]
    tag_column: str | None = None

    name: ClassVar[str] = "NER"
    problem_type: ClassVar[str | None] = None
    of_tokens: ClassVar[bool] = True
    dev_splits: ClassVar[tuple[str, ...]] = ("dev",)
    primary_metric: ClassVar[tuple[str, bool]] = ("f1", True)
    objective: ClassVar[TokenObjective] = TokenObjective()

    @staticmethod
    def of_data(path: str, tag_column: str | None, notify: Callable[[str], object]) -> "EntityFamily":
        """The family of a training file, whose tags are the labels; `notify` is told how they were written."""
        file = find_split_file(path, "train", _FILES, "NER")
        data = read_ner(file, tag_column)
        for note in data.notes:
            notify(note)
        labels = labels_of(data.sentences)
        notify(f"{file}: found {len(labels)} labels: {', '.join(labels)}")
        return EntityFamily(labels, tag_column)

    def settings(self) -> dict[str, Any]:
        """See `Family.settings`."""
        return {"family": "entities", "labels": list(self.labels), "tag_column": self.tag_column}

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> "EntityFamily":
        """The family that `settings` told of."""
        return cls(tuple(values["labels"]), values["tag_column"])

    def make_model(self, config: BertConfig, precision: str, dropout_seed: int) -> BertForTokenClassification:
        """A classifier of tokens."""
        return BertForTokenClassification(config, len(self.labels), precision, dropout_seed=dropout_seed)

    def read(self, path: str, split: str) -> list[Sentence]:
        """The sentences of a file or of a directory; raises as `read_ner` does."""
        return list(read_ner(find_split_file(path, split, _FILES, self.name), self.tag_column).sentences)

    def read_lines(self, stream: IO[bytes], name: str) -> Iterator[Sentence]:
        """A sentence a line, which is cut into words here."""
        for _, line in read_lines(stream, name):
            yield from sentences_of([line], strip_accents=False)

    def encode(
        self, examples: Sequence[Sentence], tokenizer: Tokenizer, max_seq_length: int, with_targets: bool
    ) -> tuple[Encoded, list[NerWindow]]:
        """The windows of all sentences; with targets, int32 `token_labels` and float32 `label_weights` [tokens]."""
        labels = self.labels if with_targets else ()
        windows = make_ner_windows(examples, tokenizer, max_seq_length, labels).windows
        targets = {}
        if with_targets:
            targets = {
                "token_labels": np.concatenate([window.label_ids for window in windows]),
                "label_weights": np.concatenate([window.label_weights for window in windows]),
            }
        ids = [window.input_ids for window in windows]
        firsts = np.array([len(piece) for piece in ids], np.int32)
        return Encoded.of(ids, firsts, token_targets=targets), windows

    def decode(
        self, examples: Sequence[Sentence], outputs: Outputs, context: Sequence[NerWindow]
    ) -> list[dict[str, Any]]:
        """`text`, `entities` (type, text, first character, character after the last), and `tags` of its words."""
        tags = word_tags(examples, context, [output["logits"] for output in outputs], self.labels)
        return [tell_entities(sentence, found) for sentence, found in zip(examples, tags, strict=True)]

    def evaluate(self, examples: Sequence[Sentence], predictions: Iterable[Mapping[str, Any]]) -> Metrics:
        """Precision, recall and F1 of entities, over all and by type."""
        return ner_metrics([sentence.tags for sentence in examples], [told["tags"] for told in predictions])


def tell_entities(sentence: Sentence, tags: list[str]) -> dict[str, Any]:
    """What `EntityFamily.decode` tells of a sentence."""
    entities = [{"type": e.type, "text": e.text, "start": e.start, "end": e.end} for e in find_entities(sentence, tags)]
    return {"text": sentence.text, "entities": entities, "tags": tags}
