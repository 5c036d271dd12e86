"""Entities in texts, cut into words and windows as finetuning does it; see `tf_bert.finetuning.ner_windows`."""

import tensorflow as tf

from tf_bert.serving.answers import Outputs
from tf_bert.serving.graph_inputs import Rows, Segments, clean, join, row_lengths
from tf_bert.serving.label_answers import label_names
from tf_bert.serving.network import Network
from tf_bert.serving.portions import in_portions
from tf_bert.serving.served_task import ServedTask
from tf_bert.serving.text_places import Characters
from tf_bert.tokenization.tokenizer import Tokenizer
from tf_bert.tokenization.words import split_words

_SPECIAL_TOKENS = 2


class EntityAnswers:
    """`Answers` of a tagger of words.

    Args:
      network: of a `BertForTokenClassification`.
      task: its labels are tags: O, B-TYPE, I-TYPE.
      tokenizer: of the model.
    """

    def __init__(self, network: Network, task: ServedTask, tokenizer: Tokenizer) -> None:
        self._network, self._task, self._tokenizer = network, task, tokenizer
        self._types = sorted({label[2:] for label in task.labels} - {""})
        # Of every label: its type, -1 for O, and whether an entity begins there whatever is before.
        self._type_of = tf.constant([self._types.index(tag[2:]) if tag[2:] else -1 for tag in task.labels])
        self._begins = tf.constant([tag[0] == "B" for tag in task.labels])

    def of_rows(self, rows: Rows) -> Outputs:
        """`scores` [batch, length, classes] of every token's labels, and `labels` [batch, classes]."""
        scores = tf.nn.softmax(self._network(rows)["logits"])
        return {"scores": scores, "labels": label_names(self._task, tf.shape(scores)[0])}

    def of_texts(self, *texts: tf.Tensor) -> Outputs:
        """`entity_types`, `entity_texts`, `entity_starts`, `entity_ends`, and `entity_count`.

        The first four are [batch, entities], filled up where a text has fewer; places are characters.
        """
        text = clean(texts[0])
        words = split_words(text, strip_accents=False)
        labels = self._labels_of_words(words.words)
        text_of_word = words.starts.value_rowids()
        kind = tf.gather(self._type_of, labels)
        # As `conlleval` reads it: I-X after anything but B-X or I-X of the same text begins an entity too.
        before = tf.concat([[-1], kind[:-1]], axis=0)
        is_first = tf.concat([[True], text_of_word[1:] != text_of_word[:-1]], axis=0)[: tf.size(kind)]
        begins = (kind >= 0) & (tf.gather(self._begins, labels) | is_first | (before[: tf.size(kind)] != kind))
        first_word = tf.where(begins)[:, 0]
        count = tf.size(first_word, tf.int64)
        entity = tf.cumsum(tf.cast(begins, tf.int64)) - 1  # of every word, if it is in one
        inside = tf.where(kind >= 0)[:, 0]
        last_word = tf.math.unsorted_segment_max(inside, tf.gather(entity, inside), count)

        rows = tf.gather(text_of_word, first_word)
        of_text = tf.RaggedTensor.from_value_rowids(rows, rows, tf.size(text, tf.int64), validate=False)
        characters = Characters(text)
        starts = characters.at(rows, tf.gather(words.starts.flat_values, first_word))
        ends = characters.at(rows, tf.gather(words.ends.flat_values, last_word))
        found = {
            "entity_types": tf.gather(tf.constant(self._types, tf.string), tf.gather(kind, first_word)),
            "entity_texts": characters.cut(starts, ends),
            "entity_starts": characters.in_text(rows, starts),
            "entity_ends": characters.in_text(rows, ends),
        }
        outputs = {name: of_text.with_flat_values(values).to_tensor() for name, values in found.items()}
        return {**outputs, "entity_count": row_lengths(of_text)}

    def of_words(self, words: tf.Tensor) -> Outputs:
        """The most probable tag of every word, `tags` [batch, words], filled up where a text has fewer; `word_count`.

        Args:
          words: string [batch], the words of each text with newlines between them.
        """
        split = tf.strings.split(clean(words), "\n")
        split = tf.ragged.boolean_mask(split, split != "")
        tags = split.with_flat_values(tf.gather(tf.constant(self._task.labels), self._labels_of_words(split)))
        return {"tags": tags.to_tensor(), "word_count": row_lengths(split)}

    def _labels_of_words(self, words: tf.RaggedTensor) -> tf.Tensor:
        """The most probable label of every word, int32 [words of all texts].

        Args:
          words: string [batch, (words)].
        """
        room = self._task.max_seq_length - _SPECIAL_TOKENS
        tokens = self._tokenizer.tokenize(words.flat_values)
        # A word that has no token has to have a label too.
        unknown = tf.RaggedTensor.from_row_lengths(
            tf.fill([tf.reduce_sum(tf.cast(tokens.row_lengths() == 0, tf.int32))], self._tokenizer.vocabulary.unk_id),
            tf.cast(tokens.row_lengths() == 0, tf.int64),
        )
        tokens = tf.concat([tokens, unknown], axis=1)[:, :room]
        lengths = row_lengths(tokens)
        window = _windows_of_words(words, lengths, room)
        count = tf.reduce_max(tf.concat([[-1], window], axis=0)) + 1
        window_lengths = tf.math.unsorted_segment_sum(lengths, window, count)
        window_starts = tf.cumsum(window_lengths, exclusive=True)
        rows = join([Segments(tokens.flat_values, window_starts, window_lengths)], self._tokenizer.vocabulary)
        (labels,) = in_portions(
            lambda some, _: [tf.argmax(self._network(some)["logits"], axis=-1, output_type=tf.int32)],
            rows,
            [tf.TensorSpec([None, None], tf.int32)],
        )
        position = 1 + tf.cumsum(lengths, exclusive=True) - tf.gather(window_starts, window)
        return tf.gather_nd(labels, tf.stack([window, position], axis=1))


def _windows_of_words(words: tf.RaggedTensor, lengths: tf.Tensor, room: int) -> tf.Tensor:
    """The window of every word: as many words of a text in each as there is room for.

    Args:
      words: [batch, (words)].
      lengths: int32 [words of all texts], tokens of each; `room` at most.
      room: tokens.

    Returns:
      int32 [words of all texts], 0, 1, ... through the batch.
    """
    used = tf.concat([[0], tf.cumsum(lengths)], axis=0)  # tokens before each word
    limits = tf.cast(words.row_limits(), tf.int32)
    ends = tf.searchsorted(used, used[:-1] + room, side="right") - 1  # where a window ends that begins with a word
    # One round for each window of the text that has most of them, and none for texts without words.
    begins = tf.cast(words.row_starts(), tf.int32)
    is_begin = tf.zeros_like(lengths)

    def add_windows(begins: tf.Tensor, is_begin: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        some = begins < limits
        found = tf.boolean_mask(begins, some)
        is_begin = tf.tensor_scatter_nd_update(is_begin, found[:, None], tf.ones_like(found))
        following = tf.minimum(tf.gather(ends, tf.minimum(begins, tf.size(ends) - 1)), limits)
        return tf.where(some, following, begins), is_begin

    _, is_begin = tf.while_loop(
        lambda begins, _: tf.reduce_any(begins < limits), add_windows, [begins, is_begin], parallel_iterations=1
    )
    return tf.cumsum(is_begin) - 1
