"""Masked-LM selection: one implementation for every place that masks.

Which tokens are masked is a function of (seed, row key, position) alone, so a row's masks do not depend on which rows
share its batch, on the rank or on the number of threads. Method of google-research/bert
`create_pretraining_data.py`: a fixed share of the tokens is chosen, of which 80% become [MASK], 10% stay, and 10%
become a random id of the whole vocabulary.
"""

import dataclasses

import tensorflow as tf

from tf_bert.pretraining_data.hashing import Stream, below_tensor, hash_tensors, uniform_tensor
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
    """

    seed: int
    masked_lm_prob: float
    max_predictions: int
    vocab_size: int
    mask_id: int
    never: tuple[int, ...]

    @classmethod
    def for_vocabulary(
        cls, vocabulary: Vocabulary, seed: int, masked_lm_prob: float, max_predictions: int
    ) -> "Masking":
        """The ids of `vocabulary`, with settings as above."""
        never = (vocabulary.cls_id, vocabulary.sep_id)
        return cls(seed, masked_lm_prob, max_predictions, len(vocabulary), vocabulary.mask_id, never)


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
    positions, is_chosen = _choose(scores, is_candidate, masking)

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
    """int64 [B, L], not negative: the tokens with the highest are chosen. Words of several tokens would share one."""
    positions = tf.range(length, dtype=tf.int64)[tf.newaxis]
    hashed = hash_tensors(Stream.MASK_CHOICE, seed, row_keys[:, tf.newaxis], positions)
    return tf.cast(tf.bitwise.right_shift(hashed, tf.constant(1, tf.uint64)), tf.int64)


def _choose(scores: tf.Tensor, is_candidate: tf.Tensor, masking: Masking) -> tuple[tf.Tensor, tf.Tensor]:
    """The positions chosen, ascending, 0 where unused, int32 [B, P]; and which slots are used, bool [B, P]."""
    length = scores.shape[1]
    candidates = tf.reduce_sum(tf.cast(is_candidate, tf.int32), axis=1, keepdims=True)
    wanted = tf.cast(tf.round(tf.cast(candidates, tf.float64) * masking.masked_lm_prob), tf.int32)
    wanted = tf.minimum(tf.minimum(tf.maximum(wanted, 1), candidates), masking.max_predictions)
    slots = min(masking.max_predictions, length)
    ranked = tf.math.top_k(tf.where(is_candidate, scores, -1), slots).indices
    positions = tf.sort(tf.where(tf.range(slots) < wanted, ranked, length), axis=1)
    positions = tf.pad(positions, [[0, 0], [0, masking.max_predictions - slots]], constant_values=length)
    is_chosen = positions < length
    return tf.where(is_chosen, positions, 0), is_chosen


def _replace(token_ids: tf.Tensor, row_keys: tf.Tensor, positions: tf.Tensor, masking: Masking) -> tf.Tensor:
    """What stands in the place of chosen tokens: [MASK], themselves or a random id; int32 [B, P]."""
    words = (masking.seed, row_keys[:, tf.newaxis], tf.cast(positions, tf.int64))
    action = uniform_tensor(hash_tensors(Stream.MASK_ACTION, *words))
    random_ids = tf.cast(below_tensor(hash_tensors(Stream.MASK_RANDOM_ID, *words), masking.vocab_size), tf.int32)
    kept_or_random = tf.where(action < MASKED_SHARE + KEPT_SHARE, token_ids, random_ids)
    return tf.where(action < MASKED_SHARE, masking.mask_id, kept_or_random)
