"""SavedModels with the signatures of an export and answers that anybody can work out: what a server is tested with.

A text is `long` or `short` by its bytes, entities begin with a capital letter, the answer is the context's second word.
"""

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

TEXT = tf.TensorSpec([None], tf.string, name="text")
IDS = [tf.TensorSpec([None, None], tf.int32, name=name) for name in ("input_ids", "segment_ids", "input_mask")]
TOKENS = ("river", "stone", "bank", "hill", "wood")
TOKEN_SCORES = (0.5, 0.2, 0.15, 0.1, 0.05)
ANSWER_SCORES = (0.7, 0.2, 0.1)
LETTERS = ("a", "e", "o")
VOCABULARY = 100


def spec(name: str) -> tf.TensorSpec:
    return tf.TensorSpec([None], tf.string, name=name)


class Standin(tf.Module):
    """All signatures; `number` is the model_version that they tell."""

    def __init__(self, number: int, weights: int) -> None:
        super().__init__()
        self.number = str(number)
        self.weights = tf.Variable(tf.zeros([weights]), name="weights")

    def labelled(self, scores: tf.Tensor, labels: Sequence[str]) -> dict[str, tf.Tensor]:
        count = tf.shape(scores)[0]
        return {
            "label": tf.gather(tf.constant(labels), tf.argmax(scores, axis=1)),
            "scores": scores,
            "labels": tf.tile(tf.constant(labels)[None], [count, 1]),
            "model_version": tf.fill([count], self.number),
        }

    @tf.function(input_signature=[TEXT])
    def classify(self, text):
        """`n` bytes are long with n / (n + 10)."""
        size = tf.cast(tf.strings.length(text), tf.float32)
        long = size / (size + 10.0)
        return self.labelled(tf.stack([1.0 - long, long], axis=1), ("short", "long"))

    @tf.function(input_signature=[TEXT, spec("text_pair")])
    def pair(self, text, text_pair):
        same = tf.where(tf.equal(text, text_pair), 0.9, 0.2)
        return self.labelled(tf.stack([same, 1.0 - same], axis=1), ("same", "different"))

    @tf.function(input_signature=[TEXT])
    def multilabel(self, text):
        found = [tf.strings.regex_full_match(text, f"(?s).*{letter}.*") for letter in LETTERS]
        predicted = tf.stack(found, axis=1)
        outputs = self.labelled(tf.where(predicted, 0.9, 0.1), LETTERS)
        return {**{name: value for name, value in outputs.items() if name != "label"}, "predicted": predicted}

    @tf.function(input_signature=[TEXT])
    def regression(self, text):
        return {"score": tf.cast(tf.strings.length(text), tf.float32) / 4.0}

    @tf.function(input_signature=[TEXT])
    def embed(self, text):
        size = tf.cast(tf.strings.length(text), tf.float32)
        return {"embedding": tf.stack([size, size / 2, -size, size * 0], axis=1)}

    @tf.function(input_signature=[TEXT])
    def fill_mask(self, text):
        without = tf.strings.regex_replace(text, r"\[MASK\]", "")
        count = (tf.strings.length(text) - tf.strings.length(without)) // len("[MASK]")
        shape = [tf.size(text), tf.reduce_max(count), 1]
        return {
            "tokens": tf.tile(tf.constant(TOKENS)[None, None], shape),
            "scores": tf.tile(tf.constant(TOKEN_SCORES)[None, None], shape),
            "mask_count": count,
        }

    @tf.function(input_signature=[spec("question"), spec("context")])
    def answer(self, question, context):
        words = tf.strings.split(context, " ").to_tensor(shape=[None, None])
        words = tf.pad(words, [[0, 0], [0, 2]])
        answer = words[:, 1]
        start = tf.strings.length(words[:, 0], unit="UTF8_CHAR") + 1
        end = start + tf.strings.length(answer, unit="UTF8_CHAR")
        scores = tf.tile(tf.constant([ANSWER_SCORES]), [tf.size(question), 1])
        return {
            "answer": answer,
            "score": scores[:, 0],
            "start": start,
            "end": end,
            "answers": tf.stack([answer, words[:, 0], tf.fill([tf.size(question)], "")], axis=1),
            "answer_scores": scores,
        }

    @tf.function(input_signature=[TEXT])
    def entities(self, text):
        words = tf.strings.split(text, " ")
        sizes = tf.strings.length(words.flat_values, unit="UTF8_CHAR")
        row_ends = tf.cumsum(words.with_values(sizes + 1).to_tensor(), axis=1)
        ends = tf.RaggedTensor.from_tensor(row_ends, lengths=words.row_lengths()).flat_values - 1
        chosen = tf.strings.regex_full_match(words.flat_values, r"\p{Lu}.*")

        def of_chosen(values):
            return tf.ragged.boolean_mask(words.with_values(values), words.with_values(chosen)).to_tensor()

        types = tf.where(tf.strings.regex_full_match(words.flat_values, "[A-M].*"), "PER", "LOC")
        return {
            "entity_types": of_chosen(types),
            "entity_texts": of_chosen(words.flat_values),
            "entity_starts": of_chosen(ends - sizes),
            "entity_ends": of_chosen(ends),
            "entity_count": tf.reduce_sum(tf.cast(words.with_values(chosen), tf.int32), axis=1),
        }

    @tf.function(input_signature=IDS)
    def tokens(self, input_ids, segment_ids, input_mask):
        """Ids that are not in the vocabulary fail, as in an embedding."""
        known = tf.reduce_sum(tf.gather(self.weights, input_ids), axis=1)
        return {"sum": tf.reduce_sum(input_ids * input_mask + segment_ids, axis=1) + tf.cast(known, tf.int32)}

    @tf.function(input_signature=[spec("examples")])
    def examples(self, examples):
        parsed = tf.io.parse_example(examples, {"text": tf.io.FixedLenFeature([], tf.string)})
        return self.classify(parsed["text"])

    @tf.function(input_signature=[TEXT])
    def wait(self, text):
        """Answers once the file that a text names is there."""

        def found(path):
            return tf.while_loop(
                lambda count: tf.equal(count, 0), lambda _: tf.size(tf.io.matching_files(path)), [tf.constant(0)]
            )[0]

        return {"found": tf.map_fn(found, text, fn_output_signature=tf.int32)}

    @tf.function(input_signature=[TEXT])
    def not_finite(self, text):
        return {"score": tf.cast(tf.strings.length(text), tf.float32) / 0.0}

    @tf.function(input_signature=[TEXT])
    def whole(self, text):
        """Has one output for the batch, and bytes."""
        return {"count": tf.size(text), "joined_bytes": tf.strings.reduce_join(text)}


def write_export(
    export_dir: Path, number: int = 1, default: str = "classify", names: Sequence[str] = (), weights: int = VOCABULARY
) -> Path:
    """Writes a version with `default` as serving_default and the named signatures; returns `export_dir`."""
    standin = Standin(number, weights)
    signatures = {"serving_default": getattr(standin, default), **{name: getattr(standin, name) for name in names}}
    partial = export_dir / f"{number}.partial"
    tf.saved_model.save(standin, str(partial), signatures=signatures)
    partial.rename(export_dir / str(number))
    return export_dir
