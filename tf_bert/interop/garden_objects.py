"""Finds the parts of a BERT among the objects of a Model Garden checkpoint, whatever the program called them."""

from collections.abc import Iterable, Iterator, Mapping

from tf_bert.errors import InputError
from tf_bert.interop.names import CLASSIFIER, ENCODER, MASKED_LM, NEXT_SENTENCE, POOLER_ITEM, SPAN
from tf_bert.interop.object_graph import ROOT, ObjectGraph

BLOCKS = f"{ENCODER}/_transformer_layers"

_LAYER = "layer_with_weights-"  # Keras' name of the layers of a functional model, numbered


def find_objects(graph: ObjectGraph, shapes: Mapping[str, tuple[int, ...]], source: str) -> dict[str, int]:
    """The objects that hold a BERT's tensors, by the beginnings of the names in `names.TABLE`.

    Args:
      graph: of the checkpoint.
      shapes: of its tensors.
      source: the checkpoint, for messages.

    Raises:
      InputError: if there is no BERT encoder, or more than one.
    """
    numbers = graph.nearest_first()
    encoders: dict[str | None, int] = {}
    for number in numbers:
        layer = _token_embedding(graph, number)
        if layer is not None:
            encoders.setdefault(graph.tensor(layer, "embeddings"), number)
    if not encoders:
        found = ", ".join(sorted(graph.children[ROOT])[:5])
        raise InputError(
            f"{source}: holds no BERT encoder, only {found or 'nothing'}; expected a checkpoint of Model Garden's "
            "BertEncoder or BertEncoderV2, alone or inside of another model"
        )
    if len(encoders) > 1:
        names = ", ".join(sorted(numbers[number][1] or "the root" for number in encoders.values()))
        raise InputError(
            f"{source}: holds {len(encoders)} encoders ({names}), expected one; save the one that is meant"
        )
    (encoder,) = encoders.values()
    objects = _encoder_parts(graph, graph.children[encoder])
    for role, number in _heads(graph, numbers, shapes):
        objects.setdefault(role, number)
    return objects


def _token_embedding(graph: ObjectGraph, number: int) -> int | None:
    """The layer of an encoder that embeds tokens; None if the object is no encoder."""
    children = graph.children[number]
    if "_embedding_layer" in children and "_transformer_layers" in children:
        return children["_embedding_layer"]
    first = children.get(f"{_LAYER}0")
    has_blocks = any("_attention_layer" in graph.children[child] for child in children.values())
    return first if has_blocks and first is not None and "embeddings" in graph.children[first] else None


def _encoder_parts(graph: ObjectGraph, children: Mapping[str, int]) -> dict[str, int]:
    """The layers of an encoder."""
    if "_transformer_layers" not in children:
        return _functional_parts(graph, children)
    parts = {f"{ENCODER}/{name}": child for name, child in children.items() if name.endswith("_layer")}
    if "_embedding_norm_layer" in children:
        parts[f"{ENCODER}/_embedding_norm_layer"] = children["_embedding_norm_layer"]
    blocks = graph.children[children["_transformer_layers"]]
    return parts | {f"{BLOCKS}/{name}": child for name, child in blocks.items() if name.isdecimal()}


def _functional_parts(graph: ObjectGraph, children: Mapping[str, int]) -> dict[str, int]:
    """The layers of an encoder of a release whose `BertEncoder` did not keep them as attributes."""
    parts: dict[str, int] = {}
    num_blocks = 0
    for number in range(len(children)):
        layer = children.get(f"{_LAYER}{number}")
        if layer is None:
            break
        attributes = graph.children[layer]
        if "_attention_layer" in attributes:
            parts[f"{BLOCKS}/{num_blocks}"] = layer
            num_blocks += 1
        elif "_position_embeddings" in attributes:
            parts[f"{ENCODER}/_position_embedding_layer"] = layer
        elif "embeddings" in attributes:
            kind = "_type_embedding_layer" if f"{ENCODER}/_embedding_layer" in parts else "_embedding_layer"
            parts[f"{ENCODER}/{kind}"] = layer
        elif "gamma" in attributes:
            parts[f"{ENCODER}/_embedding_norm_layer"] = layer
        elif "kernel" in attributes and num_blocks:
            parts[f"{ENCODER}/_pooler_layer"] = layer
    return parts


def _heads(
    graph: ObjectGraph, numbers: Iterable[int], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, int]]:
    """Roles of heads and the objects that may have them, the likeliest first."""
    lists: set[int] = set()
    for number in numbers:
        children = graph.children[number]
        if {"dense", "layer_norm", "bias"} <= children.keys():
            yield MASKED_LM, number
        if "span_labeling" in children:
            yield SPAN, children["span_labeling"]
        heads = children.get("classification_heads")
        if heads is not None and heads not in lists:
            lists.add(heads)
            yield from _next_sentence_heads(graph, graph.children[heads], shapes)
        if {"classification", "masked_lm"} <= children.keys():
            yield NEXT_SENTENCE, children["classification"]
        if "classifier" in children:
            yield CLASSIFIER, children["classifier"]
    for name, child in graph.children[ROOT].items():
        if name == NEXT_SENTENCE + POOLER_ITEM:
            yield f"{NEXT_SENTENCE}/dense", child
        elif name.endswith(POOLER_ITEM):
            yield f"{CLASSIFIER}/dense", child


def _next_sentence_heads(
    graph: ObjectGraph, heads: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, int]]:
    """Of a pretrainer's heads, the one that the checkpoint calls next_sentence, or its only one; with 2 outputs."""
    items = graph.children[ROOT]
    named = items.get(NEXT_SENTENCE + POOLER_ITEM)
    candidates = [head for name, head in heads.items() if name.isdecimal()]
    for head in candidates:
        outputs = shapes.get(graph.tensor(head, "out_proj/bias") or "")
        is_named = named is not None and graph.walk(head, "dense") == named
        is_only = named is None and len(candidates) == 1
        if outputs == (2,) and (is_named or is_only):
            yield NEXT_SENTENCE, head
