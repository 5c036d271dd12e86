"""What a family of tasks brings to the estimator: how its examples are read, encoded, scored and told."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

import numpy as np

from tf_bert.config import BertConfig
from tf_bert.finetuning.metrics import Metrics
from tf_bert.finetuning.packing import Encoded
from tf_bert.models.model import BertModel
from tf_bert.tokenization.tokenizer import Tokenizer
from tf_bert.training.losses import Objective

Outputs = Sequence[Mapping[str, np.ndarray]]
"""What the model says of each encoded example: scores by name, [classes], or [tokens, ...] where they are of tokens."""


class Family(Protocol):
    """Tasks of one shape. Examples are of any type, as long as one family's methods understand each other."""

    @property
    def name(self) -> str:
        """Of the task."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classifier's outputs; empty where it has none, or they have no names."""

    @property
    def problem_type(self) -> str | None:
        """Hugging Face's word in `config.json`, where it has one."""

    @property
    def primary_metric(self) -> tuple[str, bool]:
        """The metric by which models are chosen, and whether higher is better."""

    @property
    def objective(self) -> Objective:
        """The loss."""

    @property
    def of_tokens(self) -> bool:
        """Whether the model's outputs are of tokens, not of examples."""

    def settings(self) -> dict[str, Any]:
        """The task as plain values, from which `families.family_from` makes it again."""

    def make_model(self, config: BertConfig, precision: str, dropout_seed: int) -> BertModel:
        """A new model with the head of the task."""

    @property
    def dev_splits(self) -> tuple[str, ...]:
        """Names of what it is evaluated on; the first decides which model is best."""

    def read(self, path: str, split: str) -> list[Any]:
        """The examples of a split, of a file or of the task's directory; raises as the readers do."""

    def read_lines(self, stream: IO[bytes], name: str) -> Iterator[Any]:
        """Examples without labels of a pipe, a line each, as they come; `name` is what messages call it."""

    def encode(
        self, examples: Sequence[Any], tokenizer: Tokenizer, max_seq_length: int, with_targets: bool
    ) -> tuple[Encoded, Any]:
        """Token ids and targets, and what `decode` needs to know of them."""

    def decode(self, examples: Sequence[Any], outputs: Outputs, context: Any) -> list[dict[str, Any]]:
        """What to tell of every example: plain values."""

    def evaluate(self, examples: Sequence[Any], predictions: Iterable[Mapping[str, Any]]) -> Metrics:
        """Scores what `decode` told."""
