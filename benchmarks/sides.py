"""What benchmarks of pretraining share: our step, that of tf-models, random batches, the machine and its rates.

The two sides live in one process, Keras 3 beside tf_keras, and take turns.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tf_bert.config import BertConfig, OptimizerConfig, TrainingConfig
from tf_bert.distributed import World
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.training.losses import PretrainingObjective
from tf_bert.training.optimizer import build_optimizer
from tf_bert.training.train_step import Trainer

Step = Callable[[], Any]
WARM_UP = 2
LEARNING_RATE = 1e-4
CLIP_NORM = 1.0
STEPS = 1000


def machine() -> dict[str, Any]:
    """Where numbers come from: processor, cores and threads, versions."""
    return {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "tensorflow": version("tensorflow"),
        "keras": keras.__version__,
        "tf-models-official": version("tf-models-official"),
    }


def machine_line() -> str:
    """The same on a line."""
    return ", ".join(f"{name} {value}" for name, value in machine().items())


def our_trainer(
    config: BertConfig, precision: str, activation_checkpointing: bool = False, jit_compile: bool = False
) -> Trainer:
    """What `tf-bert pretrain` trains with."""
    model = BertForPretraining(config, precision, activation_checkpointing)
    training = TrainingConfig(num_train_steps=STEPS, global_batch_size=1, microbatch_size=1, precision=precision)
    optimizer = build_optimizer(OptimizerConfig(learning_rate=LEARNING_RATE), training, model.trainable_variables)
    return Trainer(model, PretrainingObjective(), optimizer, World(), CLIP_NORM, jit_compile)


def our_step(trainer: Trainer, batch: Mapping[str, np.ndarray], accumulation: int = 1) -> Step:
    """An update of `accumulation` microbatches, all of them this one."""
    tensors = {name: tf.constant(np.stack([value] * accumulation)) for name, value in batch.items()}
    step = tf.function(trainer.train_step)
    return lambda: float(step(tensors)["loss"])


class TfModels:
    """tf-models' task, model and optimizer: `MaskedLMTask.train_step` over `BertPretrainerV2` with their AdamW."""

    def __init__(self, config: BertConfig, precision: str) -> None:
        import tf_keras
        from official.nlp import optimization
        from official.nlp.configs import bert, encoders
        from official.nlp.data.pretrain_dataloader import BertPretrainDataConfig
        from official.nlp.tasks.masked_lm import MaskedLMConfig, MaskedLMTask

        tf_keras.mixed_precision.set_global_policy(precision)
        encoder = encoders.EncoderConfig(
            type="bert",
            bert=encoders.BertEncoderConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                num_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                intermediate_size=config.intermediate_size,
                max_position_embeddings=config.max_position_embeddings,
            ),
        )
        head = bert.ClsHeadConfig(inner_dim=config.hidden_size, num_classes=2, dropout_rate=0.1, name="next_sentence")
        pretrainer = bert.PretrainerConfig(encoder=encoder, cls_heads=[head])
        self.task = MaskedLMTask(MaskedLMConfig(model=pretrainer, train_data=BertPretrainDataConfig()))
        self.model = self.task.build_model()
        self._optimizer = optimization.create_optimizer(LEARNING_RATE, STEPS, STEPS // 10)
        self._metrics = self.task.build_metrics(training=True)
        self._train = tf.function(self._train_step)

    def _train_step(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        logs: dict[str, tf.Tensor] = self.task.train_step(inputs, self.model, self._optimizer, self._metrics)
        return logs

    def train(self, inputs: dict[str, tf.Tensor]) -> float:
        """One update from a batch of their loader's features; the loss."""
        return float(self._train(inputs)[self.task.loss])

    def step(self, batch: Mapping[str, np.ndarray]) -> Step:
        """An update from this batch of ours."""
        names = {"input_ids": "input_word_ids", "segment_ids": "input_type_ids"}
        inputs = {names.get(name, name): tf.constant(value) for name, value in batch.items()}
        inputs["next_sentence_labels"] = inputs["next_sentence_labels"][:, None]
        return lambda: self.train(inputs)


def matrix_rate(precision: str) -> float:
    """Floating-point operations a second of a large matrix product: the best of several."""
    side = 2048
    a, b = (tf.cast(tf.random.normal((side, side)), "float32" if precision == "float32" else "bfloat16") for _ in "ab")
    product = tf.function(lambda: tf.reduce_sum(tf.cast(tf.matmul(a, b), "float32")))
    return 2 * side**3 / min(seconds_of(lambda: float(product())) for _ in range(8))


def seconds_of(step: Step) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def in_turns(steps: Mapping[str, Step], repeats: int, warm_up: int = WARM_UP) -> dict[str, float]:
    """Median seconds of each, called in turns."""
    for step in steps.values():
        for _ in range(warm_up):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(seconds_of(step))
    return {name: statistics.median(values) for name, values in times.items()}
