"""Answers and metrics of a model for its task, in the order of the examples."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tf_bert.distributed import World
from tf_bert.finetuning.family import Family
from tf_bert.finetuning.metrics import Metrics
from tf_bert.finetuning.scoring import Scorer
from tf_bert.models.model import BertModel
from tf_bert.tokenization.tokenizer import Tokenizer

READ_AT_ONCE = 128  # examples: many enough for full rows, few enough for a pipe that somebody waits at


class Predictor:
    """A model with its task.

    Args:
      model: with the head of the task.
      family: the task.
      tokenizer: of the model.
      max_seq_length: tokens of an example; longer texts are cut.
      world: ranks that share the work; all of them call each method with the same examples.
    """

    def __init__(
        self, model: BertModel, family: Family, tokenizer: Tokenizer, max_seq_length: int, world: World | None = None
    ) -> None:
        self.model, self.family, self.tokenizer, self.max_seq_length = model, family, tokenizer, max_seq_length
        self._world = world or World()
        self._scorer = Scorer(model, family.of_tokens)

    def predict(self, examples: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """What `Family.decode` tells of every example, as soon as some more have been read."""
        remaining = iter(examples)
        while portion := list(itertools.islice(remaining, READ_AT_ONCE)):
            yield from self._predict(portion)

    def evaluate(self, examples: Sequence[Any]) -> Metrics:
        """The task's metrics on examples with labels."""
        return self.family.evaluate(examples, self._predict(examples))

    def _predict(self, examples: Sequence[Any]) -> list[dict[str, Any]]:
        encoded, context = self.family.encode(examples, self.tokenizer, self.max_seq_length, False)
        outputs = self._scorer.outputs(encoded, self.max_seq_length, self._world)
        return self.family.decode(examples, outputs, context)
