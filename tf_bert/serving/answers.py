"""What all parts of a served graph that answer to texts have in common."""

from collections.abc import Mapping
from typing import Protocol

import tensorflow as tf

from tf_bert.serving.graph_inputs import Rows

Outputs = Mapping[str, tf.Tensor]


class Answers(Protocol):
    """Texts to answers, and rows of token ids to scores, as operations of a graph."""

    def of_texts(self, *texts: tf.Tensor) -> Outputs:
        """Answers to texts, string [batch] each; every output is [batch, ...]."""

    def of_rows(self, rows: Rows) -> Outputs:
        """Scores of rows of token ids; every output is [batch, ...]."""
