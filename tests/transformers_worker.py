"""What `peers.py` asks of transformers and sentence-transformers, in a process of another Python: a job a line.

A job is a JSON object with `do`, the name of one of `JOBS`, and its arguments; the answer is a line of JSON too. Arrays
go through .npz files. Nothing of this project is imported here.
"""

import functools
import importlib.metadata
import json
import sys
import traceback
from pathlib import Path

import numpy as np
import torch
import transformers


@functools.lru_cache(maxsize=1)
def opened(directory, kind):
    """A model that found everything that it has a place for, and nothing else, in a directory."""
    model, info = getattr(transformers, kind).from_pretrained(directory, output_loading_info=True)
    found = {name: sorted(info[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    assert not any(found.values()), found
    return model.eval()


def read(path):
    """The arrays of a file as tensors."""
    return {name: torch.tensor(value) for name, value in np.load(path).items()}


def write(path, tensors):
    """Tensors to a file."""
    np.savez(path, **{name: value.detach().numpy() for name, value in tensors.items()})


def measure(directory, rows, weights, output):
    """Outputs of `BertForPreTraining` at given places, and gradients of their sum times `weights` by tensor names."""
    model, arrays = opened(directory, "BertForPreTraining"), read(rows)
    inputs = {name.removeprefix("inputs/"): value for name, value in arrays.items() if name.startswith("inputs/")}
    encoded = model.bert(
        input_ids=inputs["input_ids"], token_type_ids=inputs["segment_ids"], attention_mask=inputs["input_mask"]
    )
    everywhere, next_sentence = model.cls(encoded.last_hidden_state, encoded.pooler_output)
    positions = inputs["masked_lm_positions"].long()[:, :, None].expand(-1, -1, everywhere.shape[-1])
    outputs = {
        "sequence_output": encoded.last_hidden_state,
        "pooled_output": encoded.pooler_output,
        "masked_lm_logits": torch.gather(everywhere, 1, positions),
        "next_sentence_logits": next_sentence,
    }
    outputs = {name: value[tuple(arrays[f"places/{name}"].long().T)] for name, value in outputs.items()}
    results = {f"outputs/{name}": value for name, value in outputs.items()}
    if weights:
        model.zero_grad()
        sum((outputs[name] * weight).sum() for name, weight in read(weights).items()).backward()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        # Where the output matrix is not tied to the embedding, this library has two biases and adds the decoder's.
        gradients.setdefault("cls.predictions.bias", gradients.get("cls.predictions.decoder.bias"))
        results |= {f"gradients/{name}": value for name, value in gradients.items()}
    write(output, results)


def forward(directory, kind, inputs, output):
    """All that a model of a kind gives for its inputs; returns its labels."""
    model = opened(directory, kind)
    with torch.no_grad():
        write(output, dict(model(**read(inputs))))
    return model.config.id2label


def save(kind, config, directory, inputs, output, dtype="float32", max_shard_size="5GB", **arguments):
    """A model with random weights written by transformers, and what it gives for its inputs in float32."""
    torch.manual_seed(5)
    model = getattr(transformers, kind)(transformers.BertConfig(**config), **arguments).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_((1.0 if name.endswith("LayerNorm.weight") else 0.0) + 0.1 * torch.randn(value.shape))
        model.to(getattr(torch, dtype)).save_pretrained(directory, max_shard_size=max_shard_size)
        write(output, dict(model.float()(**read(inputs))))
    return sorted(path.name for path in Path(directory).iterdir())


def fill_mask(directory, text, top):
    """The pipeline's answers: of every mask, tokens and probabilities."""
    found = transformers.pipeline("fill-mask", model=directory, tokenizer=directory, top_k=top)(text)
    masks = found if isinstance(found[0], list) else [found]
    return [[(guess["token_str"], guess["score"]) for guess in guesses] for guesses in masks]


def embed(directory, texts, output, save_to=None):
    """Vectors of sentence-transformers, which may write the directory anew."""
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(directory, device="cpu")
    np.save(output, model.encode(texts, batch_size=16))
    if save_to:
        model.save(save_to)


def versions():
    """Of the libraries, by their names."""
    names = {"torch": "torch", "transformers": "transformers", "sentence_transformers": "sentence-transformers"}
    return {key: importlib.metadata.version(name) for key, name in names.items()}


JOBS = {job.__name__: job for job in (measure, forward, save, fill_mask, embed, versions)}

if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print as they like
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = {"result": JOBS[job.pop("do")](**job)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)
