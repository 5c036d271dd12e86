"""Texts to ids: special tokens, segments, and cutting as the original release cuts."""

import numpy as np
import pytest
import tensorflow as tf

from tf_bert.finetuning.batches import ExampleOrder, training_dataset
from tf_bert.finetuning.encoding import encode_texts, truncate
from tf_bert.tokenization.vocab import SPECIAL_TOKENS, Vocabulary
from tf_bert.tokenization.wordpiece import WordPieceTokenizer

WORDS = ("the", "cat", "sat", "on", "a", "mat", "##s", "dog", ".", ",")
TOKENIZER = WordPieceTokenizer(Vocabulary((*SPECIAL_TOKENS, *WORDS)), lower_case=True)


def original_cut(first: int, second: int, budget: int) -> tuple[int, int]:
    """`_truncate_seq_pair` of `run_classifier.py`, on lengths."""
    while first + second > budget:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


def test_pairs_are_cut_one_token_at_a_time_from_the_longer_text():
    first, second = (values.reshape(-1) for values in np.meshgrid(np.arange(15), np.arange(15)))
    for budget in range(12):
        kept = truncate([first, second], budget)
        expected = [original_cut(a, b, budget) for a, b in zip(first, second, strict=True)]
        assert list(zip(*kept, strict=True)) == expected
    assert truncate([np.array([3, 9])], 5)[0].tolist() == [3, 5]


@pytest.mark.parametrize("length", [8, 9, 12, 64])
def test_examples_are_cls_a_sep_and_b_sep(length):
    pairs = [("The cat sat on the mat.", "A dog, a dog."), ("mats", "cats"), ("the", "sat sat sat sat sat sat")]
    encoded = encode_texts(pairs, TOKENIZER, length)
    vocabulary = TOKENIZER.vocabulary
    for i, (first, second) in enumerate(pairs):
        a, b = TOKENIZER.tokenize(tf.constant([first, second])).to_list()
        kept = original_cut(len(a), len(b), length - 3)
        expected = [vocabulary.cls_id, *a[: kept[0]], vocabulary.sep_id, *b[: kept[1]], vocabulary.sep_id]
        assert encoded.input_ids[encoded.offsets[i] : encoded.offsets[i + 1]].tolist() == expected
        assert encoded.first_lengths[i] == kept[0] + 2
    single = encode_texts([(first,) for first, _ in pairs], TOKENIZER, length)
    assert single.lengths.tolist() == single.first_lengths.tolist()
    assert single.lengths.max() == min(length, 9) and single.input_ids[single.offsets[1] - 1] == vocabulary.sep_id


def test_the_order_of_examples_is_a_function_of_seed_and_step():
    order = ExampleOrder(10, seed=3)
    stream = np.concatenate([order.of_step(step, 4) for step in range(25)])
    for epoch in range(10):
        assert sorted(stream[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert len({tuple(stream[10 * epoch : 10 * epoch + 10]) for epoch in range(10)}) > 8
    # Whatever was asked before, and in whatever batches.
    np.testing.assert_array_equal(ExampleOrder(10, seed=3).of_step(17, 4), stream[68:72])
    np.testing.assert_array_equal(np.concatenate([ExampleOrder(10, 3).of_step(s, 20) for s in range(5)]), stream)
    assert ExampleOrder(10, seed=4).of_step(0, 10).tolist() != stream[:10].tolist()
    assert ExampleOrder(1, seed=0).of_step(0, 4).tolist() == [0, 0, 0, 0]  # a single training row


def test_ranks_and_microbatches_share_the_same_global_batches():
    texts = [(" ".join(["cat"] * (1 + i % 7)),) for i in range(30)]
    encoded = encode_texts(texts, TOKENIZER, 16)
    encoded = type(encoded)(
        encoded.input_ids, encoded.offsets, encoded.first_lengths, {"labels": np.arange(30, dtype="int32")}
    )
    order = ExampleOrder(30, seed=1)

    def examples(step, world_size, accumulation_steps):
        found, counts = [], set()
        for rank in range(world_size):
            dataset = training_dataset(
                encoded,
                order,
                row_length=16,
                global_batch_size=12,
                accumulation_steps=accumulation_steps,
                rank=rank,
                world_size=world_size,
                first_step=step,
            )
            batch = next(iter(dataset))
            microbatches, rows, _ = batch["input_ids"].shape
            assert rows <= 12 // world_size // accumulation_steps  # of 16 tokens, so no more than padding would take
            counts.add(microbatches)
            found += batch["labels"].numpy()[batch["example_weights"].numpy() > 0].tolist()
        assert len(counts) == 1 and max(counts) <= accumulation_steps
        return sorted(found)

    for step in (0, 1, 5):
        expected = sorted(order.of_step(step, 12).tolist())
        for world_size, accumulation_steps in ((1, 1), (1, 4), (2, 3), (3, 1)):
            assert examples(step, world_size, accumulation_steps) == expected


def dataset_of(lengths, accumulation_steps, rank=0, world_size=1):
    """The whole of some examples in every global batch, in rows of 16 tokens."""
    encoded = encode_texts([(" ".join(["cat"] * (length - 2)),) for length in lengths], TOKENIZER, 16)
    return training_dataset(
        encoded,
        ExampleOrder(len(lengths), seed=0),
        row_length=16,
        global_batch_size=len(lengths),
        accumulation_steps=accumulation_steps,
        rank=rank,
        world_size=world_size,
        first_step=0,
    )


@pytest.mark.parametrize(
    ("lengths", "microbatches"),
    [([16] * 12, 4), ([16] * 7 + [3] * 5, 3), ([4] * 12, 1)],
    ids=["long", "mixed", "short"],
)
def test_there_are_as_few_microbatches_as_hold_the_rows(lengths, microbatches):
    dataset = dataset_of(lengths, accumulation_steps=4)
    assert dataset.element_spec["input_ids"].shape.as_list() == [None, None, None]
    weights = next(iter(dataset))["token_weights"].numpy()
    assert len(weights) == microbatches and weights.shape[1] <= 3
    assert weights.sum() == sum(lengths)


def test_ranks_have_as_many_microbatches_as_the_one_that_needs_most():
    """Rank 0 has three long examples, rank 1 three short ones."""
    lengths = np.full(6, 4)
    lengths[ExampleOrder(6, seed=0).of_step(0, 6)[:3]] = 16
    batches = [next(iter(dataset_of(lengths, 3, rank, world_size=2))) for rank in (0, 1)]
    assert [batch["token_weights"].numpy().sum() for batch in batches] == [48, 12]
    assert [len(batch["token_weights"]) for batch in batches] == [3, 3]


def test_microbatches_take_turns_at_the_rows():
    """No two examples fit in a row, and the two long ones come first: both microbatches have one."""
    dataset = dataset_of([9, 16, 9, 9, 16, 9], accumulation_steps=2)
    weights = next(iter(dataset))["token_weights"].numpy()
    assert weights.shape == (2, 3, 16)
    assert weights.sum(axis=2).tolist() == [[16, 9, 9], [16, 9, 9]]
