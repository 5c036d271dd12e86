"""How far apart our model and another with the same weights are, on the same examples.

Examples lie in padded rows, in packed rows or alone; outputs are told for the examples' own tokens, one after the
other, so that those of different rows can be compared. Shared by tests and scripts/write_parity.py.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from odd_shapes import Example

from tf_bert.config import BertConfig
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.pretraining_data.packing import pack

OUTPUTS = ("sequence_output", "pooled_output", "masked_lm_logits", "next_sentence_logits")
OUTPUT_BOUND = 1e-5
"""Most that an output may differ, in float32."""
GRADIENT_BOUND = 1e-4
"""Most that a gradient may differ, as a share of the largest number in it, or of one where that is less."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a model's input, and where in its outputs the examples' are: indices along the outputs' first axes."""

    inputs: dict[str, np.ndarray]
    places: dict[str, np.ndarray]

    def pick(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs [batch, ...] as [tokens, ...], [examples, ...] and [masks, ...] of the examples in order."""
        return {name: tf.gather_nd(outputs[name], self.places[name]) for name in OUTPUTS}


def padded_rows(examples: Sequence[Example]) -> Rows:
    """Every example in a row of its own, the shorter ones padded."""
    rows = _lay_out(examples, [[index] for index in range(len(examples))])
    for name in ("position_ids", "next_sentence_positions"):
        rows.inputs.pop(name)
    rows.inputs["input_mask"] = rows.inputs.pop("example_ids")
    for name in ("pooled_output", "next_sentence_logits"):
        rows.places[name] = rows.places[name][:, :1]
    return rows


def packed_rows(examples: Sequence[Example], length: int) -> Rows:
    """Rows of up to `length` tokens of several examples."""
    packed = pack(np.array([len(example.input_ids) for example in examples]), length, len(examples))
    bounds = itertools.pairwise(packed.offsets.tolist())
    return _lay_out(examples, [packed.examples[start:stop].tolist() for start, stop in bounds])


def _lay_out(examples: Sequence[Example], rows: Sequence[Sequence[int]]) -> Rows:
    """Packed rows of the examples with the given numbers."""
    features = ("input_ids", "segment_ids", "position_ids", "example_ids", "next_sentence_positions")
    inputs: dict[str, list[list[int]]] = {name: [] for name in (*features, "masked_lm_positions")}
    places: dict[str, list[list[tuple[int, int]]]] = {name: [[] for _ in examples] for name in OUTPUTS}
    for row, members in enumerate(rows):
        for feature in inputs.values():
            feature.append([])
        for number, index in enumerate(members):
            example, length = examples[index], len(examples[index].input_ids)
            start, slot = len(inputs["input_ids"][row]), len(inputs["masked_lm_positions"][row])
            for name, values in {
                "input_ids": example.input_ids.tolist(),
                "segment_ids": example.segment_ids.tolist(),
                "position_ids": range(length),
                "example_ids": [number + 1] * length,
                "next_sentence_positions": [start],
                "masked_lm_positions": (start + example.masked_lm_positions).tolist(),
            }.items():
                inputs[name][row] += values
            places["sequence_output"][index] = [(row, start + i) for i in range(length)]
            places["masked_lm_logits"][index] = [(row, slot + i) for i in range(len(example.masked_lm_positions))]
            places["pooled_output"][index] = places["next_sentence_logits"][index] = [(row, number)]
    return Rows(
        {name: _rectangle(lists) for name, lists in inputs.items()},
        {name: np.array([place for each in found for place in each], "int32") for name, found in places.items()},
    )


def _rectangle(rows: Sequence[Sequence[int]]) -> np.ndarray:
    filled = np.zeros((len(rows), max(map(len, rows))), "int32")
    for target, row in zip(filled, rows, strict=True):
        target[: len(row)] = row
    return filled


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a model makes of examples."""

    outputs: dict[str, np.ndarray]
    """By `OUTPUTS`, of the examples' own tokens, masks, or of the examples."""
    gradients: dict[str, np.ndarray]
    """Of a loss, by the paths of our variables and in their layout."""


def directions(config: BertConfig, examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """Random weights of every number of the outputs in a loss, scaled so that it is a mean over examples."""
    rng = np.random.default_rng(99)
    tokens = sum(len(example.input_ids) for example in examples)
    masks = sum(len(example.masked_lm_positions) for example in examples)
    sizes = (tokens, config.hidden_size), (len(examples), config.hidden_size), (masks, config.vocab_size)
    shapes = dict(zip(OUTPUTS, (*sizes, (len(examples), 2)), strict=True))
    return {name: (rng.normal(size=shape) / shape[0]).astype("float32") for name, shape in shapes.items()}


def measure(
    call: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    variables: Mapping[str, Any],
    rows: Rows,
    weights: Mapping[str, np.ndarray] | None,
) -> Measured:
    """Outputs and, with `weights`, the gradient of the sum of outputs times them by TensorFlow variables."""
    with tf.GradientTape() as tape:
        picked = rows.pick(call({name: tf.constant(value) for name, value in rows.inputs.items()}))
        outputs = {name: np.asarray(value) for name, value in picked.items()}
        if weights is None:
            return Measured(outputs, {})
        loss = tf.add_n([tf.reduce_sum(picked[name] * weights[name]) for name in OUTPUTS])
    gradients = tape.gradient(loss, variables)
    return Measured(outputs, tf.nest.map_structure(lambda value: np.asarray(tf.convert_to_tensor(value)), gradients))


def measure_ours(model: BertForPretraining, rows: Rows, weights: Mapping[str, np.ndarray]) -> Measured:
    """Our model's outputs and gradients."""
    variables = {variable.path: variable.value for variable in model.trainable_variables}
    return measure(lambda inputs: {**model.encoder(inputs), **model(inputs)}, variables, rows, weights)


class Peer(Protocol):
    """Another library's model, with the weights of ours."""

    def measure(self, rows: Rows, weights: Mapping[str, np.ndarray] | None) -> Measured:
        """Outputs for padded rows and, with `weights`, gradients as `measure` tells them."""


@dataclasses.dataclass(frozen=True)
class Differences:
    """The largest difference between our model and a peer."""

    outputs: dict[str, float]
    """By `OUTPUTS`, in padded rows."""
    packed: float
    """Of all outputs, between our packed rows and the peer's examples one by one."""
    gradients: float
    """Of the gradient by a variable, padded and packed: as a share of the largest number in it, or of one if less."""


def compare(model: BertForPretraining, peer: Peer, examples: Sequence[Example], length: int) -> Differences:
    """Measures both on the same examples.

    Args:
      model: ours.
      peer: with the same weights.
      examples: in padded rows, in packed rows and one by one.
      length: of packed rows.
    """
    weights = directions(model.config, examples)
    padded, packed = padded_rows(examples), packed_rows(examples, length)
    ours, ours_packed = measure_ours(model, padded, weights), measure_ours(model, packed, weights)
    theirs = peer.measure(padded, weights)
    alone = [peer.measure(padded_rows([example]), None).outputs for example in examples]
    one_by_one = {name: np.concatenate([outputs[name] for outputs in alone]) for name in OUTPUTS}
    assert ours.gradients.keys() == theirs.gradients.keys()
    return Differences(
        {name: _largest(ours.outputs[name], theirs.outputs[name]) for name in OUTPUTS},
        max(_largest(ours_packed.outputs[name], one_by_one[name]) for name in OUTPUTS),
        max(
            _largest(found.gradients[path], expected) / max(1.0, float(np.abs(expected).max()))
            for found in (ours, ours_packed)
            for path, expected in theirs.gradients.items()
        ),
    )


def _largest(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max())
