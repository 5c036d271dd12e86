"""Questions and contexts as windows, as operations of a served graph.

What `tf_bert.finetuning.squad_windows` does: `[CLS] question [SEP] piece of the context [SEP]`, pieces that overlap.
"""

from typing import NamedTuple

import tensorflow as tf

from tf_bert.serving.graph_inputs import Rows, Segments, join, row_lengths
from tf_bert.serving.served_task import ServedTask
from tf_bert.tokenization.tokenizer import Tokenizer
from tf_bert.tokenization.words import tokenize_words

_SPECIAL_TOKENS = 3


class Windows(NamedTuple):
    """The windows of a batch of questions, in their order.

    Args:
      rows: what the encoder reads.
      question: int32 [windows], which question each belongs to.
      context_begin: int32 [windows], position of the first token of the context.
      tokens: int32 [windows, context tokens], a window's context as places in `starts` and `ends`; the number of all
        tokens where it has no more.
      has_most_context: bool [windows, context tokens]: an answer may begin here. No other window has more tokens
        around this one.
      starts, ends: int64 [tokens of all contexts], the bytes of each token's word.
    """

    rows: Rows
    question: tf.Tensor
    context_begin: tf.Tensor
    tokens: tf.Tensor
    has_most_context: tf.Tensor
    starts: tf.Tensor
    ends: tf.Tensor


def make_windows(questions: tf.Tensor, contexts: tf.Tensor, task: ServedTask, tokenizer: Tokenizer) -> Windows:
    """Cuts contexts, string [batch], that do not fit beside their questions, string [batch]."""
    longest = task.max_seq_length - _SPECIAL_TOKENS
    query = tokenizer.tokenize(questions)
    query_lengths = tf.minimum(row_lengths(query), min(task.span.max_query_length, longest - 1))
    context = tokenize_words(tokenizer, contexts)
    lengths = row_lengths(context.ids)
    room = longest - query_lengths
    step = tf.minimum(room, task.span.doc_stride)
    count = (tf.maximum(lengths - room, 0) + step - 1) // step + 1

    question = tf.repeat(tf.range(tf.size(count)), count)
    number = tf.range(tf.size(question)) - tf.gather(tf.cumsum(count, exclusive=True), question)
    begin = number * tf.gather(step, question)
    length = tf.minimum(tf.gather(room, question), tf.gather(lengths, question) - begin)
    first = tf.gather(tf.cumsum(lengths, exclusive=True), question) + begin
    whole_query = Segments.of(query, query_lengths)
    own_query = Segments(whole_query.values, *(tf.gather(part, question) for part in whole_query[1:]))
    rows = join([own_query, Segments(context.ids.flat_values, first, length)], tokenizer.vocabulary)

    total = tf.size(context.ids.flat_values)
    within = tf.range(tf.maximum(tf.reduce_max(length), 1))[None, :]
    tokens = tf.where(within < length[:, None], first[:, None] + within, total)
    return Windows(
        rows,
        question,
        own_query.lengths + 2,
        tokens,
        _most_context(tokens, within, length[:, None], total),
        context.starts.flat_values,
        context.ends.flat_values,
    )


def _most_context(tokens: tf.Tensor, within: tf.Tensor, length: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    """Whether a window is the one, the first of equals, that scores its token highest.

    The score is the smaller number of tokens before and after in the window, plus a hundredth of its length.
    """
    around = tf.cast(tf.minimum(within, length - 1 - within), tf.float64)
    score = around + 0.01 * tf.cast(length, tf.float64)
    best = tf.gather(tf.math.unsorted_segment_max(score, tokens, total + 1), tokens)
    window = tf.broadcast_to(tf.range(tf.shape(tokens)[0])[:, None], tf.shape(tokens))
    candidate = tf.where(score == best, window, tf.int32.max)
    owner = tf.gather(tf.math.unsorted_segment_min(candidate, tokens, total + 1), tokens)
    return (owner == window) & (tokens < total)
