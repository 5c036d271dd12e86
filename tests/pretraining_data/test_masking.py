"""Masks: exact against a plain rendering, and their rates against 15% and 80/10/10."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tf_bert.pretraining_data.hashing import Stream, below, hash_words, uniform
from tf_bert.pretraining_data.masking import Masking, apply_masking
from tf_bert.pretraining_data.schema import BATCH_FEATURES

PAD, CLS, SEP, MASK, VOCAB = 0, 2, 3, 4, 1000
MASKING = Masking(seed=5, masked_lm_prob=0.15, max_predictions=20, vocab_size=VOCAB, mask_id=MASK, never=(CLS, SEP))


def unmasked_batch(rows: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of one or two examples, with some padding at the end."""
    rng = np.random.default_rng(seed)
    input_ids = rng.integers(5, VOCAB, (rows, length)).astype("int32")
    example_ids = np.ones((rows, length), "int32")
    for row in range(rows):
        end = length - int(rng.integers(0, length // 4))
        middle = int(rng.integers(length // 4, length // 2))
        input_ids[row, [0, middle]] = CLS
        input_ids[row, [middle // 2, middle - 1, (middle + end) // 2, end - 1]] = SEP
        input_ids[row, end:] = PAD
        example_ids[row, middle:] = 2
        example_ids[row, end:] = 0
    return {"input_ids": input_ids, "example_ids": example_ids}


def keys_of(rows: int, epoch: int = 0) -> np.ndarray:
    return hash_words(epoch, np.arange(rows)).view(np.int64)


def masked(batch, keys, masking=MASKING) -> dict[str, np.ndarray]:
    run = tf.function(lambda tensors, row_keys: apply_masking(tensors, row_keys, masking))
    result = run({name: tf.constant(values) for name, values in batch.items()}, tf.constant(keys))
    return {name: values.numpy() for name, values in result.items()}


def reference(input_ids, example_ids, key, masking):
    """One row, token by token: rank the candidates by hash, take the first, replace each by its own draws."""
    candidates = [i for i in range(len(input_ids)) if example_ids[i] and input_ids[i] not in (CLS, SEP)]
    wanted = min(masking.max_predictions, len(candidates), max(1, round(masking.masked_lm_prob * len(candidates))))
    ranked = sorted(candidates, key=lambda i: -hash_words(Stream.MASK_CHOICE, masking.seed, key, i))
    positions = sorted(ranked[:wanted])
    output = input_ids.copy()
    for i in positions:
        action = uniform(hash_words(Stream.MASK_ACTION, masking.seed, key, i))
        if action < 0.8:
            output[i] = MASK
        elif action >= 0.9:
            output[i] = below(hash_words(Stream.MASK_RANDOM_ID, masking.seed, key, i), masking.vocab_size)
    return output, positions


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_predictions": 3},
        {"masked_lm_prob": 0.5, "max_predictions": 40},
        {"masked_lm_prob": 0.001},
        {"max_predictions": 100},
    ],
    ids=["usual", "capped", "half", "at least one", "more slots than tokens"],
)
def test_equals_a_plain_rendering(changes):
    masking = dataclasses.replace(MASKING, **changes)
    batch, keys = unmasked_batch(40, 64), keys_of(40)
    result = masked(batch, keys, masking)
    slots = masking.max_predictions
    for row in range(40):
        ids, positions = reference(batch["input_ids"][row], batch["example_ids"][row], keys[row], masking)
        used = len(positions)
        np.testing.assert_array_equal(result["input_ids"][row], ids)
        np.testing.assert_array_equal(result["masked_lm_positions"][row], positions + [0] * (slots - used))
        np.testing.assert_array_equal(result["masked_lm_weights"][row], [1] * used + [0] * (slots - used))
        originals = batch["input_ids"][row][positions].tolist()
        np.testing.assert_array_equal(result["masked_lm_ids"][row], originals + [0] * (slots - used))
    np.testing.assert_array_equal(result["example_ids"], batch["example_ids"])
    for name in ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"):
        assert result[name].dtype == BATCH_FEATURES[name][0].as_numpy_dtype


def test_rates_at_length():
    rows, length = 500, 128
    batch = unmasked_batch(rows, length, seed=1)
    result = masked(batch, keys_of(rows))
    is_candidate = (batch["example_ids"] > 0) & ~np.isin(batch["input_ids"], (CLS, SEP))
    chosen = result["masked_lm_weights"] > 0
    assert chosen.sum() / is_candidate.sum() == pytest.approx(0.15, abs=0.002)
    now = np.take_along_axis(result["input_ids"], result["masked_lm_positions"], 1)[chosen]
    before = result["masked_lm_ids"][chosen]
    # Some 8,000 chosen tokens: a standard deviation of 0.0045 for the 80% and of 0.0034 for the 10%.
    assert (now == MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert (now == before).mean() == pytest.approx(0.1, abs=0.015)
    random_ids = now[(now != MASK) & (now != before)]
    assert len(random_ids) / len(now) == pytest.approx(0.1, abs=0.015)
    # Of the whole vocabulary, evenly.
    assert random_ids.min() < 30 and random_ids.max() > VOCAB - 30
    assert random_ids.mean() == pytest.approx(VOCAB / 2, abs=5 * VOCAB / (12 * len(random_ids)) ** 0.5)
    # Every place of a row is as likely as another.
    places = np.bincount(result["masked_lm_positions"][chosen], minlength=length) / np.maximum(is_candidate.sum(0), 1)
    assert np.abs(places[1:90] - 0.15).max() < 0.09
    assert places[1:45].mean() == pytest.approx(places[45:90].mean(), abs=0.01)


def test_a_row_is_masked_alike_in_any_batch():
    batch, keys = unmasked_batch(12, 64), keys_of(12)
    whole = masked(batch, keys)
    picked = np.array([7, 2, 2, 11])
    part = masked({name: values[picked] for name, values in batch.items()}, keys[picked])
    for name, values in part.items():
        np.testing.assert_array_equal(values, whole[name][picked], name)


def test_keys_and_seeds_give_other_masks():
    batch = unmasked_batch(30, 64)
    first = masked(batch, keys_of(30))["masked_lm_positions"]
    other_key = masked(batch, keys_of(30, epoch=1))["masked_lm_positions"]
    other_seed = masked(batch, keys_of(30), dataclasses.replace(MASKING, seed=6))["masked_lm_positions"]
    for other in (other_key, other_seed):
        same = np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(first, other, strict=True)])
        assert same < 0.3
    rows_of_one_text = {name: np.repeat(values[:1], 30, 0) for name, values in batch.items()}
    assert len({tuple(row) for row in masked(rows_of_one_text, keys_of(30))["masked_lm_positions"]}) == 30


def test_padding_alone_has_no_masks():
    empty = {name: np.zeros((2, 16), "int32") for name in ("input_ids", "example_ids")}
    result = masked(empty, keys_of(2))
    for name in ("input_ids", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights"):
        assert not result[name].any(), name


# --- whole words ---------------------------------------------------------------------------------------------

CONTINUES = np.random.default_rng(8).random(VOCAB) < 0.35  # so words have 1.5 pieces on average
CONTINUES[:5] = False
WORDS = dataclasses.replace(MASKING, continues_word=CONTINUES)


def units_of(input_ids, example_ids, key, masking):
    """Words, or runs of words, of one row: lists of neighbouring positions."""
    units, joins = [], False
    for i in range(len(input_ids)):
        is_candidate = example_ids[i] and input_ids[i] not in (CLS, SEP)
        if is_candidate:
            draw = uniform(hash_words(Stream.MASK_SPAN, masking.seed, key, i))
            goes_on = masking.continues_word[input_ids[i]] or draw >= 1 / masking.mean_span_words
            if joins and goes_on:
                units[-1].append(i)
            else:
                units.append([i])
        joins = is_candidate
    return units


def words_of(input_ids, example_ids, masking):
    return units_of(input_ids, example_ids, 0, dataclasses.replace(masking, mean_span_words=1.0))


def chosen_units(units, key, masking):
    """Google's loop: units in random order, each taken if the budget has room for all of it."""
    budget = min(masking.max_predictions, max(1, round(masking.masked_lm_prob * sum(map(len, units)))))
    taken = []
    for unit in sorted(units, key=lambda unit: -hash_words(Stream.MASK_CHOICE, masking.seed, key, unit[0])):
        if len(taken) + len(unit) <= budget:
            taken += unit
    return sorted(taken), budget


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_predictions": 3},
        {"masked_lm_prob": 0.5, "max_predictions": 100},
        {"mean_span_words": 3.0},
        {"mean_span_words": 10.0, "masked_lm_prob": 0.4},
        {"continues_word": np.ones(VOCAB, bool)},
        {"continues_word": np.zeros(VOCAB, bool)},
    ],
    ids=["usual", "capped", "half", "runs", "long runs", "all one word", "single tokens"],
)
def test_whole_words_equal_a_plain_rendering(changes):
    masking = dataclasses.replace(WORDS, **changes)
    batch, keys = unmasked_batch(40, 64), keys_of(40)
    result = masked(batch, keys, masking)
    for row in range(40):
        units = units_of(batch["input_ids"][row], batch["example_ids"][row], keys[row], masking)
        positions, budget = chosen_units(units, keys[row], masking)
        used = result["masked_lm_weights"][row] > 0
        assert result["masked_lm_positions"][row][used].tolist() == positions
        assert used.sum() <= budget <= masking.max_predictions
    if changes.get("continues_word") is not None and not changes["continues_word"].any():
        single = masked(batch, keys, dataclasses.replace(masking, continues_word=None))
        for name in single:
            np.testing.assert_array_equal(result[name], single[name], name)


def test_rates_of_whole_words():
    rows, length = 500, 128
    batch = unmasked_batch(rows, length, seed=1)
    result = masked(batch, keys_of(rows), WORDS)
    chosen, positions = result["masked_lm_weights"] > 0, result["masked_lm_positions"]
    sizes = {True: [], False: []}
    for row in range(rows):
        taken = set(positions[row][chosen[row]].tolist())
        for word in words_of(batch["input_ids"][row], batch["example_ids"][row], WORDS):
            assert len(taken & set(word)) in (0, len(word)), "a word is partly masked"
            sizes[word[0] in taken].append(len(word))
    # Rounding aside the budget is used up: some word of one token nearly always fits into what is left.
    assert chosen.sum() / sum(map(sum, sizes.values())) == pytest.approx(0.15, abs=0.002)
    now, before = np.take_along_axis(result["input_ids"], positions, 1)[chosen], result["masked_lm_ids"][chosen]
    # As for single tokens: each token of a word is replaced on its own.
    assert (now == MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert (now == before).mean() == pytest.approx(0.1, abs=0.015)
    # Long words are passed over a little more often, when the budget is nearly used up.
    assert np.mean(sizes[True]) == pytest.approx(np.mean(sizes[False]), rel=0.07)


def test_runs_have_geometric_lengths():
    length, mean = 512, 3.0
    input_ids = np.full((60, length), 7, "int32")
    batch = {"input_ids": input_ids, "example_ids": np.ones_like(input_ids)}
    masking = dataclasses.replace(WORDS, mean_span_words=mean, continues_word=np.zeros(VOCAB, bool))
    masking = dataclasses.replace(masking, masked_lm_prob=0.02, max_predictions=80)
    keys = keys_of(60)
    lengths = np.concatenate(
        [
            [len(unit) for unit in units_of(i, e, k, masking)]
            for i, e, k in zip(input_ids, batch["example_ids"], keys, strict=True)
        ]
    )
    # 10,000 runs: a standard deviation of 0.025 for the mean and of 0.005 for the shares.
    assert lengths.mean() == pytest.approx(mean, abs=0.1)
    for words in (1, 2, 3):
        assert (lengths == words).mean() == pytest.approx((1 - 1 / mean) ** (words - 1) / mean, abs=0.02)
    # Single tokens would nearly never be neighbours at this rate; of runs, two thirds of the tokens are.
    positions = masked(batch, keys, masking)
    taken = positions["masked_lm_positions"], positions["masked_lm_weights"] > 0
    neighbours = [(np.diff(row[used]) == 1).mean() for row, used in zip(*taken, strict=True)]
    assert np.mean(neighbours) > 0.4
