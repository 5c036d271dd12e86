"""Masked-LM selection: one implementation for every place that masks.

Which tokens are masked is a function of (seed, row key, position) alone, so a row's masks do not depend on which rows
share its batch, on the rank or on the number of threads. Method of google-research/bert
`create_pretraining_data.py`: a fixed share of the tokens is chosen, of which 80% become [MASK], 10% stay, and 10%
become a random id of the whole vocabulary, each token on its own.

Whole words are taken in random order; one that is longer than what is left of the share is passed over. Words may be
joined into runs of geometric length, as in SpanBERT (Joshi et al. 2019, section 3.1), that are taken or passed over
like a word; a run ends at the latest where its segment does.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from tf_bert.config import DataConfig, PrepareConfig
from tf_bert.pretraining_data.hashing import Stream
from tf_bert.pretraining_data.hashing_ops import below_tensor, hash_tensors, uniform_tensor
from tf_bert.pretraining_data.schema import Batch
from tf_bert.tokenization.vocab import Vocabulary

MASKED_SHARE = 0.8
KEPT_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Masking:
    """How to mask.

    Attributes:
      seed: of all choices.
      masked_lm_prob: share of a row's candidates that is chosen, rounded, at least one.
      max_predictions: P, chosen at most.
      vocab_size: random ids are below it.
      mask_id: of [MASK].
      never: ids that are never chosen: [CLS] and [SEP].
      continues_word: bool [vocab_size], the ids that belong to the word of the token before them; None chooses
        single tokens.
      mean_span_words: with `continues_word`: mean length of the runs of words that are chosen together.
    """

    seed: int
    masked_lm_prob: float
    max_predictions: int
    vocab_size: int
    mask_id: int
    never: tuple[int, ...]
    continues_word: np.ndarray | None = None
    mean_span_words: float = 1.0

    @classmethod
    def from_settings(
        cls, settings: DataConfig | PrepareConfig, vocabulary: Vocabulary, max_seq_length: int, seed: int
    ) -> "Masking":
        """What `settings` ask for, with the ids of `vocabulary`, in rows of `max_seq_length` tokens."""
        return cls(
            seed=seed,
            masked_lm_prob=settings.masked_lm_prob,
            max_predictions=predictions_per_row(settings, max_seq_length),
            vocab_size=len(vocabulary),
            mask_id=vocabulary.mask_id,
            never=(vocabulary.cls_id, vocabulary.sep_id),
            continues_word=vocabulary.continues_word if settings.whole_word_masking else None,
            mean_span_words=settings.mean_span_words,
        )


def predictions_per_row(settings: DataConfig | PrepareConfig, max_seq_length: int) -> int:
    """P, the masked tokens that a row has room for."""
    return settings.max_predictions_per_seq or math.ceil(max_seq_length * settings.masked_lm_prob)


def apply_masking(batch: Batch, row_keys: tf.Tensor, masking: Masking) -> Batch:
    """Chooses and masks tokens.

    Args:
      batch: as `schema.parse_rows` returns it, [B, L].
      row_keys: int64 [B]; rows of equal tokens and key get equal masks.
      masking: settings.

    Returns:
      `batch` with input_ids masked, and with masked_lm_positions, masked_lm_ids and masked_lm_weights [B, P].
    """
    original_ids = batch["input_ids"]
    length = original_ids.shape[1]
    is_candidate = _candidates(batch, masking)
    scores = _scores(row_keys, length, masking.seed)
    unit_starts = (
        None if masking.continues_word is None else _unit_starts(original_ids, is_candidate, row_keys, masking)
    )
    positions, is_chosen = _choose(scores, is_candidate, unit_starts, masking)

    masked_lm_ids = tf.gather(original_ids, positions, batch_dims=1)
    replaced = _replace(masked_lm_ids, row_keys, positions, masking)
    # Unused slots point at position 0 and write back what is there, [CLS] or padding, which is never chosen.
    updates = tf.where(is_chosen, replaced, masked_lm_ids)
    rows = tf.broadcast_to(tf.range(tf.shape(positions)[0])[:, tf.newaxis], tf.shape(positions))
    return {
        **batch,
        "input_ids": tf.tensor_scatter_nd_update(original_ids, tf.stack([rows, positions], axis=-1), updates),
        "masked_lm_positions": positions,
        "masked_lm_ids": tf.where(is_chosen, masked_lm_ids, 0),
        "masked_lm_weights": tf.cast(is_chosen, tf.float32),
    }


def _candidates(batch: Batch, masking: Masking) -> tf.Tensor:
    """The tokens that may be chosen, bool [B, L]."""
    is_candidate = batch["example_ids"] > 0
    for token_id in masking.never:
        is_candidate &= batch["input_ids"] != token_id
    return is_candidate


def _scores(row_keys: tf.Tensor, length: int, seed: int) -> tf.Tensor:
    """int64 [B, L], not negative: the tokens with the highest are chosen; a word has the score of its first token."""
    positions = tf.range(length, dtype=tf.int64)[tf.newaxis]
    hashed = hash_tensors(Stream.MASK_CHOICE, seed, row_keys[:, tf.newaxis], positions)
    return tf.cast(tf.bitwise.right_shift(hashed, tf.constant(1, tf.uint64)), tf.int64)


def _unit_starts(token_ids: tf.Tensor, is_candidate: tf.Tensor, row_keys: tf.Tensor, masking: Masking) -> tf.Tensor:
    """Where a word, or a run of words, that is chosen as a whole begins, bool [B, L]."""
    follows_candidate = tf.pad(is_candidate[:, :-1], [[0, 0], [1, 0]])
    positions = tf.range(token_ids.shape[1], dtype=tf.int64)[tf.newaxis]
    draws = uniform_tensor(hash_tensors(Stream.MASK_SPAN, masking.seed, row_keys[:, tf.newaxis], positions))
    # A run that ends after every word with one chance has a geometric length.
    ends_run = ~tf.gather(tf.constant(masking.continues_word), token_ids) & (draws < 1 / masking.mean_span_words)
    return is_candidate & (~follows_candidate | ends_run)


def _choose(
    scores: tf.Tensor, is_candidate: tf.Tensor, unit_starts: tf.Tensor | None, masking: Masking
) -> tuple[tf.Tensor, tf.Tensor]:
    """The positions chosen, ascending, 0 where unused, int32 [B, P]; and which slots are used, bool [B, P]."""
    length = scores.shape[1]
    candidates = tf.reduce_sum(tf.cast(is_candidate, tf.int32), axis=1, keepdims=True)
    wanted = tf.cast(tf.round(tf.cast(candidates, tf.float64) * masking.masked_lm_prob), tf.int32)
    wanted = tf.minimum(tf.minimum(tf.maximum(wanted, 1), candidates), masking.max_predictions)
    slots = min(masking.max_predictions, length)
    if unit_starts is None:
        ranked = tf.math.top_k(tf.where(is_candidate, scores, -1), slots).indices
        positions = tf.where(tf.range(slots) < wanted, ranked, length)
    else:
        in_chosen_unit = _choose_units(scores, is_candidate, unit_starts, wanted)
        positions = tf.where(in_chosen_unit, tf.range(length), length)
    positions = tf.sort(positions, axis=1)[:, :slots]
    positions = tf.pad(positions, [[0, 0], [0, masking.max_predictions - slots]], constant_values=length)
    is_chosen = positions < length
    return tf.where(is_chosen, positions, 0), is_chosen


def _choose_units(scores: tf.Tensor, is_candidate: tf.Tensor, unit_starts: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """Takes units by score, passing over those that are longer than what is left of `wanted`.

    Args:
      scores: int64 [B, L]; a unit's is that of its first token.
      is_candidate: bool [B, L].
      unit_starts: bool [B, L]; a unit goes on until the next one starts or a token is no candidate.
      wanted: int32 [B, 1], tokens at most.

    Returns:
      The tokens of the units taken, bool [B, L].
    """
    rows, length = tf.shape(scores)[0], scores.shape[1]
    first_slots = tf.range(rows)[:, tf.newaxis] * length
    # Every row has `length` slots for its units; the sums over a unit's tokens are its length and its score.
    slots = first_slots + tf.cumsum(tf.cast(unit_starts, tf.int32), axis=1) - 1

    def per_unit(values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.math.unsorted_segment_sum(values, slots, rows * length), [rows, length])

    lengths = per_unit(tf.cast(is_candidate, tf.int32))
    order = tf.argsort(per_unit(tf.where(unit_starts, scores, 0)), axis=1, direction="DESCENDING", stable=True)
    ranked_lengths = tf.gather(lengths, order, batch_dims=1)

    # Units are looked at in their order. All up to the first that does not fit are taken in one round; as room only
    # shrinks, that one and any other that is too long by then never fit again.
    def fitting(is_taken: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
        return ~is_taken & (ranked_lengths > 0) & (ranked_lengths <= room)

    def take(is_taken: tf.Tensor, room: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        fits = fitting(is_taken, room)
        taken_lengths = tf.where(fits, ranked_lengths, 0)
        taken_now = fits & (tf.cumsum(taken_lengths, axis=1) <= room)
        room -= tf.reduce_sum(tf.where(taken_now, ranked_lengths, 0), axis=1, keepdims=True)
        return is_taken | taken_now, room

    is_taken, _ = tf.while_loop(
        lambda is_taken, room: tf.reduce_any(fitting(is_taken, room)), take, (tf.zeros_like(order, tf.bool), wanted)
    )
    taken_slots = tf.boolean_mask(order + first_slots, is_taken)
    is_taken_slot = tf.scatter_nd(taken_slots[:, tf.newaxis], tf.ones_like(taken_slots, tf.bool), [rows * length])
    return is_candidate & tf.gather(is_taken_slot, tf.maximum(slots, 0))


def _replace(token_ids: tf.Tensor, row_keys: tf.Tensor, positions: tf.Tensor, masking: Masking) -> tf.Tensor:
    """What stands in the place of chosen tokens: [MASK], themselves or a random id; int32 [B, P]."""
    words = (masking.seed, row_keys[:, tf.newaxis], tf.cast(positions, tf.int64))
    action = uniform_tensor(hash_tensors(Stream.MASK_ACTION, *words))
    random_ids = tf.cast(below_tensor(hash_tensors(Stream.MASK_RANDOM_ID, *words), masking.vocab_size), tf.int32)
    kept_or_random = tf.where(action < MASKED_SHARE + KEPT_SHARE, token_ids, random_ids)
    return tf.where(action < MASKED_SHARE, masking.mask_id, kept_or_random)
