"""Answers as spans of a context; see `tf_bert.finetuning.squad_decoding`, which this does in a graph."""

import math
from typing import NamedTuple

import tensorflow as tf

from tf_bert.serving.answers import Outputs
from tf_bert.serving.graph_inputs import Rows, clean
from tf_bert.serving.network import Network
from tf_bert.serving.portions import in_portions
from tf_bert.serving.question_windows import Windows, make_windows
from tf_bert.serving.served_task import ServedTask
from tf_bert.serving.text_places import Characters
from tf_bert.tokenization.tokenizer import Tokenizer

TOLD = 3
"""The best answers that are told with their probabilities."""


class _Spans(NamedTuple):
    """The best texts of every question, best first, [batch, n_best_size]; filled up with scores of minus infinity."""

    scores: tf.Tensor
    """float64."""
    texts: tf.Tensor
    starts: tf.Tensor
    """int32, characters."""
    ends: tf.Tensor


class QuestionAnswers:
    """`Answers` of a model of spans.

    Args:
      network: of a `BertForQuestionAnswering`.
      task: of questions.
      tokenizer: of the model.
    """

    def __init__(self, network: Network, task: ServedTask, tokenizer: Tokenizer) -> None:
        self._network, self._task, self._tokenizer = network, task, tokenizer

    def of_rows(self, rows: Rows) -> Outputs:
        """`start_logits` and `end_logits` [batch, length]."""
        return self._network(rows)

    def of_texts(self, *texts: tf.Tensor) -> Outputs:
        """`answer` (empty: there is none), its probability as `score`, and `start` and `end`, which are characters.

        Besides the best `answers` and their `answer_scores`, [batch, told]; of SQuAD 2.0 also `best_text`, which may be
        a text where the answer is none, and `null_score_difference`.
        """
        question, context = map(clean, texts)
        windows = make_windows(question, context, self._task, self._tokenizer)
        scores, choices, null_scores = self._best_of_windows(windows)
        spans = self._best_of_questions(windows, scores, choices, context)
        null_score = tf.math.unsorted_segment_min(null_scores, windows.question, tf.size(context))
        return self._tell(spans, tf.ensure_shape(null_score, [None]))

    def _best_of_windows(self, windows: Windows) -> list[tf.Tensor]:
        """Scores of the best spans of each window, which they are, and the score of no answer: float64, int32, float64.

        The first two are [windows, spans], best first. A span is a number: its first token times `max_answer_length`,
        plus its length less one.
        """
        longest = self._task.span.max_answer_length
        limit = self._task.span.n_best_size**2  # many spans can have one text: so more of them than are wanted
        width = tf.shape(windows.tokens)[1]
        has_token = windows.tokens < tf.size(windows.starts)

        def best(rows: Rows, numbers: tf.Tensor) -> list[tf.Tensor]:
            logits = {name: tf.cast(value, tf.float64) for name, value in self._network(rows).items()}
            place = tf.gather(windows.context_begin, numbers)[:, None] + tf.range(width)
            place = tf.minimum(place, tf.shape(rows.input_ids)[1] - 1)
            real = tf.gather(has_token, numbers)
            may_begin = tf.gather(windows.has_most_context, numbers)
            start, end = (
                tf.where(allowed, tf.gather(logits[name], place, batch_dims=1), -math.inf)
                for name, allowed in (("start_logits", may_begin), ("end_logits", real))
            )
            end = tf.pad(end, [[0, 0], [0, longest - 1]], constant_values=-math.inf)
            ends = tf.gather(end, tf.range(width)[:, None] + tf.range(longest), axis=1)
            table = tf.reshape(start[:, :, None] + ends, [-1, width * longest])
            scores, choices = tf.math.top_k(table, tf.minimum(limit, width * longest))
            return [scores, choices, logits["start_logits"][:, 0] + logits["end_logits"][:, 0]]

        spans = [tf.TensorSpec([None, None], dtype) for dtype in (tf.float64, tf.int32)]
        return in_portions(best, windows.rows, [*spans, tf.TensorSpec([None], tf.float64)])

    def _best_of_questions(
        self, windows: Windows, scores: tf.Tensor, choices: tf.Tensor, contexts: tf.Tensor
    ) -> _Spans:
        """The best spans of all windows of a question, each text once."""
        real = tf.where(scores > -math.inf)
        window, scores, choices = real[:, 0], tf.gather_nd(scores, real), tf.gather_nd(choices, real)
        question = tf.cast(tf.gather(windows.question, window), tf.int64)
        order = tf.argsort(scores, direction="DESCENDING", stable=True)
        order = tf.gather(order, tf.argsort(tf.gather(question, order), stable=True))
        window, scores, choices, question = (tf.gather(part, order) for part in (window, scores, choices, question))

        first, more = choices // self._task.span.max_answer_length, choices % self._task.span.max_answer_length
        first_token, last_token = (
            tf.gather_nd(windows.tokens, tf.stack([tf.cast(window, tf.int32), place], axis=1))
            for place in (first, first + more)
        )
        characters = Characters(contexts)
        starts = characters.at(question, tf.gather(windows.starts, first_token))
        ends = characters.at(question, tf.gather(windows.ends, last_token))
        texts = characters.cut(starts, ends)
        names, name = tf.unique(tf.strings.join([tf.strings.as_string(question), texts], "\n"))
        number = tf.range(tf.size(name))
        is_first = number == tf.gather(tf.math.unsorted_segment_min(number, name, tf.size(names)), name)

        rows = tf.boolean_mask(question, is_first)
        of_question = tf.RaggedTensor.from_value_rowids(rows, rows, tf.size(contexts, tf.int64), validate=False)

        def table(values: tf.Tensor, missing: float | str) -> tf.Tensor:
            ragged = of_question.with_flat_values(tf.boolean_mask(values, is_first))
            return ragged.to_tensor(missing, shape=[None, self._task.span.n_best_size])

        return _Spans(
            table(scores, -math.inf),
            table(texts, ""),
            table(characters.in_text(question, starts), 0),
            table(characters.in_text(question, ends), 0),
        )

    def _tell(self, spans: _Spans, null_score: tf.Tensor) -> Outputs:
        has_span = spans.scores[:, 0] > -math.inf
        # Where the context has no word a score of 0 stands in, as in the original.
        difference = null_score - tf.where(has_span, spans.scores[:, 0], 0.0)
        is_null = ~has_span
        if self._task.has_impossible:
            is_null |= difference > self._task.span.null_threshold
            null_candidate = null_score
        else:
            null_candidate = tf.where(~has_span, null_score, -math.inf)
        scores = tf.concat([spans.scores, null_candidate[:, None]], axis=1)
        texts = tf.concat([spans.texts, tf.zeros_like(spans.texts[:, :1])], axis=1)
        probabilities = tf.cast(tf.nn.softmax(scores), tf.float32)
        best_scores, best = tf.math.top_k(scores, min(TOLD, self._task.span.n_best_size + 1))
        is_real = best_scores > -math.inf
        outputs = {
            "answer": tf.where(is_null, "", spans.texts[:, 0]),
            "score": tf.where(is_null, probabilities[:, -1], probabilities[:, 0]),
            "start": tf.where(is_null, 0, spans.starts[:, 0]),
            "end": tf.where(is_null, 0, spans.ends[:, 0]),
            "answers": tf.where(is_real, tf.gather(texts, best, batch_dims=1), ""),
            "answer_scores": tf.where(is_real, tf.gather(probabilities, best, batch_dims=1), 0.0),
        }
        if self._task.has_impossible:
            outputs |= {"best_text": spans.texts[:, 0], "null_score_difference": tf.cast(difference, tf.float32)}
        return outputs
