"""Whether the examples are right: their statistics beside those of tf-models' `create_pretraining_data`.

python benchmarks/prepare_examples.py [--max_seq_length 128] [--passes 3] [--whole_words]

Both sides get the text of the real dump excerpt, a sentence a line, and write the original format: the same vocabulary
of 8,000 tokens, the same number of passes, no held-out documents. Lengths are compared by the largest distance between
their cumulative distributions (Kolmogorov-Smirnov), beside the distance that two samples of one distribution of these
sizes exceed once in a thousand times. Rows of one document overlap and so are not independent, which makes chance
distances larger than that.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from inputs import EXCERPT, peer_records, read_texts, write_inputs

from tf_bert.config import PrepareConfig
from tf_bert.pretraining_data.build import build
from tf_bert.tokenization.vocab import Vocabulary

Columns = dict[str, np.ndarray]


def read_records(paths: list[str], length: int, predictions: int) -> Columns:
    """All records of the original format, a matrix for each feature."""
    features = {name: tf.io.FixedLenFeature([length], tf.int64) for name in ("input_ids", "input_mask", "segment_ids")}
    for name, dtype in (("positions", tf.int64), ("ids", tf.int64), ("weights", tf.float32)):
        features[f"masked_lm_{name}"] = tf.io.FixedLenFeature([predictions], dtype)
    features["next_sentence_labels"] = tf.io.FixedLenFeature([1], tf.int64)
    batches = tf.data.TFRecordDataset(paths).batch(10_000).map(lambda rows: tf.io.parse_example(rows, features))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in features}


def statistics_of(rows: Columns, vocabulary: Vocabulary) -> dict[str, float]:
    """What a table can show of examples and masks."""
    lengths, b_lengths = rows["input_mask"].sum(axis=1), rows["segment_ids"].sum(axis=1)
    chosen = rows["masked_lm_weights"] > 0
    shown = np.take_along_axis(rows["input_ids"], rows["masked_lm_positions"], axis=1)[chosen]
    answers = rows["masked_lm_ids"][chosen]
    original = rows["input_ids"].copy()
    row, slot = np.nonzero(chosen)
    is_masked = np.zeros(original.shape, bool)
    is_masked[row, rows["masked_lm_positions"][row, slot]] = True
    original[row, rows["masked_lm_positions"][row, slot]] = answers
    continues = np.array([token.startswith("##") for token in vocabulary.tokens])[original]
    # A piece and the one before it, if they are of one word: are both masked, or neither?
    special = (vocabulary.cls_id, vocabulary.sep_id)
    same_word = continues[:, 1:] & ~np.isin(original[:, :-1], special)
    return {
        "rows": len(lengths),
        "random next": rows["next_sentence_labels"].mean(),
        "tokens a row": lengths.mean(),
        "tokens of A": (lengths - b_lengths).mean(),
        "tokens of B": b_lengths.mean(),
        "masked, of all tokens": chosen.sum() / lengths.sum(),
        "masked, of the budget": chosen.sum() / budget(rows, vocabulary).sum(),
        "of the masked: [MASK]": (shown == vocabulary.mask_id).mean(),
        "of the masked: unchanged": (shown == answers).mean(),
        "of the masked: another token": ((shown != vocabulary.mask_id) & (shown != answers)).mean(),
        "masked [CLS] or [SEP]": np.isin(answers, special).sum(),
        "pieces masked as their word": (is_masked[:, 1:] == is_masked[:, :-1])[same_word].mean(),
    }


def budget(rows: Columns, vocabulary: Vocabulary) -> np.ndarray:
    """Tokens of each row that the published method would mask: 15% of them, at most as many as there is room for."""
    lengths = rows["input_mask"].sum(axis=1)
    return np.clip(np.rint(0.15 * lengths), 1, rows["masked_lm_ids"].shape[1])


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of two cumulative distributions."""
    grid = np.union1d(ours, theirs)
    cumulative = [np.searchsorted(np.sort(values), grid, side="right") / len(values) for values in (ours, theirs)]
    return float(np.abs(cumulative[0] - cumulative[1]).max())


def main() -> None:
    """Builds with both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max_seq_length", type=int, default=128, help="tokens of a row (default: 128)")
    parser.add_argument("--passes", type=int, default=3, help="dupe_factor (default: 3)")
    parser.add_argument("--whole_words", action="store_true", help="mask whole words")
    parser.add_argument("--short_seq_prob", type=float, default=0.1, help="share of short targets (default: 0.1)")
    options = parser.parse_args()
    length, predictions = options.max_seq_length, round(0.16 * options.max_seq_length)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        sentences, vocab = write_inputs(read_texts(EXCERPT), root)
        files = [str(root / "peer.tfrecord")]
        peer_records(
            sentences, vocab, Path(files[0]), length, predictions, passes=options.passes,
            short_seq_prob=options.short_seq_prob, whole_words=options.whole_words,
        )  # fmt: skip
        build(
            PrepareConfig(
                input=str(sentences),
                output_dir=str(root / "ours"),
                vocab=str(vocab),
                max_seq_length=length,
                row_format="original",
                dupe_factor=options.passes,
                max_predictions_per_seq=predictions,
                whole_word_masking=options.whole_words,
                short_seq_prob=options.short_seq_prob,
                validation_fraction=0.0,
                sentence_splitter="line",
            )
        )
        vocabulary = Vocabulary.load(vocab)
        ours = read_records(sorted(str(path) for path in (root / "ours").glob("train-*")), length, predictions)
        theirs = read_records(files, length, predictions)
    left, right = statistics_of(ours, vocabulary), statistics_of(theirs, vocabulary)
    print(f"length {length}, {options.passes} passes, short_seq_prob {options.short_seq_prob:g}\n")
    print("| statistic | tf_bert | tf-models |\n|---|---|---|")
    for name, value in left.items():
        form = ",.0f" if isinstance(value, int | np.integer) else ".1f" if name.startswith("tokens") else ".4f"
        print(f"| {name} | {value:{form}} | {right[name]:{form}} |")
    chance = 1.95 * (1 / len(ours["input_ids"]) + 1 / len(theirs["input_ids"])) ** 0.5
    for name, columns in (("A", ("input_mask", "segment_ids")), ("B", ("segment_ids",))):
        first, *others = (tuple(rows[c].sum(axis=1) for rows in (ours, theirs)) for c in columns)
        pair = tuple(a - sum(b[i] for b in others) for i, a in enumerate(first))
        print(f"| lengths of {name}: largest distance (by chance {chance:.3f}) | {distance(*pair):.3f} | |")


if __name__ == "__main__":
    main()
