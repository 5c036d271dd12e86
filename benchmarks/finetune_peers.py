"""What benchmarks/finetune.py runs of other projects, each in a process of its own and without this one's packages.

python benchmarks/finetune_peers.py SIDE SETTINGS.json RESULT.json

SIDE is keras_hub or transformers. The settings name the files, the model and the hyper-parameters; see `Settings`.
"""

import dataclasses
import itertools
import json
import os
import random
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run."""

    model: str
    """A directory with config.json, model.safetensors and vocab.txt."""
    train: str
    """JSONL: texts and label."""
    dev: str
    """The same."""
    num_labels: int
    steps: int
    """Updates."""
    warm_up: int
    """Updates that are not timed."""
    batch_size: int = 32
    length: int = 128
    learning_rate: float = 2e-5
    seed: int = 0
    precision: str = "float32"
    """float32 or bfloat16."""
    pads_to_length: bool = True
    """False: pad to the longest of the batch (transformers only)."""


def read(path: str) -> tuple[list[list[str]], list[int]]:
    """Texts and labels."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [row["texts"] for row in rows], [row["label"] for row in rows]


def rate_of(times: list[float], settings: Settings) -> float:
    """Examples per second, by the median time between two updates after the warm-up."""
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)][settings.warm_up :]
    return settings.batch_size / statistics.median(gaps)


def keras_hub(settings: Settings) -> dict[str, float]:
    """`BertTextClassifier.fit`, with random weights of the model's shape: for the speed alone."""
    import keras
    import keras_hub as hub
    import tensorflow as tf

    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy("float32" if settings.precision == "float32" else "mixed_bfloat16")
    config = json.loads((Path(settings.model) / "config.json").read_text())
    backbone = hub.models.BertBackbone(
        vocabulary_size=config["vocab_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        hidden_dim=config["hidden_size"],
        intermediate_dim=config["intermediate_size"],
        max_sequence_length=config["max_position_embeddings"],
        dropout=0.1,
    )
    tokenizer = hub.models.BertTokenizer(vocabulary=str(Path(settings.model) / "vocab.txt"), lowercase=True)
    preprocessor = hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=settings.length)
    classifier = hub.models.BertTextClassifier(backbone, settings.num_labels, preprocessor=preprocessor, dropout=0.1)
    classifier.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.AdamW(settings.learning_rate),
    )
    texts, labels = read(settings.train)
    columns = tuple(list(column) for column in zip(*texts, strict=True))
    features = columns if len(columns) == 2 else columns[0]
    dataset = tf.data.Dataset.from_tensor_slices((features, labels)).shuffle(len(labels), seed=settings.seed)
    dataset = dataset.repeat().batch(settings.batch_size).prefetch(2)
    times: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            times.append(time.perf_counter())

    classifier.fit(dataset, steps_per_epoch=settings.steps, epochs=1, verbose=0, callbacks=[Clock()])
    return {"examples_per_second": rate_of(times, settings)}


def transformers(settings: Settings) -> dict[str, float]:
    """`BertForSequenceClassification` in a plain PyTorch loop: linear warmup over a tenth, linear decay, AdamW.

    On a GPU where there is one.
    """
    import numpy as np
    import torch
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
    from transformers import AutoTokenizer, BertForSequenceClassification, get_linear_schedule_with_warmup

    torch.manual_seed(settings.seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(settings.model)
    model = BertForSequenceClassification.from_pretrained(settings.model, num_labels=settings.num_labels).to(device)
    no_decay = ("bias", "LayerNorm.weight")
    groups = [
        {"params": [p for n, p in model.named_parameters() if not n.endswith(no_decay)], "weight_decay": 0.01},
        {"params": [p for n, p in model.named_parameters() if n.endswith(no_decay)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, eps=1e-6)
    schedule = get_linear_schedule_with_warmup(optimizer, int(np.ceil(0.1 * settings.steps)), settings.steps)

    def encode(texts: list[list[str]]) -> dict[str, torch.Tensor]:
        return tokenizer(
            *(list(column) for column in zip(*texts, strict=True)),
            truncation=True,
            max_length=settings.length,
            padding="max_length" if settings.pads_to_length else True,
            return_tensors="pt",
        ).to(device)

    texts, labels = read(settings.train)
    times: list[float] = []
    order: list[int] = []
    generator = random.Random(settings.seed)
    bfloat16 = torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bfloat16")
    model.train()
    for _ in range(settings.steps):
        if len(order) < settings.batch_size:
            order += generator.sample(range(len(texts)), len(texts))
        batch, order = order[: settings.batch_size], order[settings.batch_size :]
        targets = torch.tensor([labels[i] for i in batch], device=device)
        with bfloat16:
            loss = model(**encode([texts[i] for i in batch]), labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())
    result = {"examples_per_second": rate_of(times, settings)} if settings.steps > settings.warm_up + 2 else {}
    texts, gold = read(settings.dev)
    if not texts:
        return result
    model.eval()
    with torch.no_grad():
        logits = [model(**encode(texts[i : i + 64])).logits for i in range(0, len(texts), 64)]
    found = torch.cat(logits).argmax(-1).tolist()
    scores = {"accuracy": accuracy_score, "f1": f1_score, "matthews": matthews_corrcoef}
    return {**result, **{name: float(score(gold, found)) for name, score in scores.items()}}


if __name__ == "__main__":
    side, settings_file, result_file = sys.argv[1:]
    values = json.loads(Path(settings_file).read_text())
    Path(result_file).write_text(
        json.dumps({"keras_hub": keras_hub, "transformers": transformers}[side](Settings(**values)))
    )
