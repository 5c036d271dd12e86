"""An estimator on Keras 3: train, evaluate, predict and export a finetuned BERT, with a directory that it lives in.

It has the shape of TensorFlow's own `tf.estimator.Estimator`, which is gone. What people remember of `model_dir` holds:
called again, training goes on from the newest checkpoint, and `evaluate` and `predict` read that checkpoint.
"""

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_bert.config import BertConfig, LearningConfig, RunConfig, to_dict
from tf_bert.config.mounts import without_mounts
from tf_bert.distributed import World
from tf_bert.errors import InputError, UsageError
from tf_bert.files import read_json, reporting_disk_errors, write_json
from tf_bert.finetuning.evaluations import Evaluations
from tf_bert.finetuning.family import Family
from tf_bert.finetuning.metrics import Metrics
from tf_bert.finetuning.model_directory import MODEL_DIR, write_finetuned_model
from tf_bert.finetuning.predictor import Predictor
from tf_bert.finetuning.starting import fit_labels
from tf_bert.finetuning.training import TrainingRun
from tf_bert.interop.source import open_source
from tf_bert.models.model import BertModel
from tf_bert.models.weights import LoadReport, assign_weights
from tf_bert.run_log import RunLog
from tf_bert.serving.export import export
from tf_bert.tokenization.tokenizer import Tokenizer, load_tokenizer, make_tokenizer, save_tokenizer
from tf_bert.training.checkpoint import CheckpointManager

RUN_FILE = "run.json"
TOKENIZER_DIR = "tokenizer"
CHECKPOINTS_DIR = "checkpoints"
BEST_DIR = "best"
MAY_BE_NEW = ("pooler", "classifier", "span")
"""Parts that a source may be without; they are then made anew."""

Data = Sequence[Any] | Callable[[], Iterable[Any]]
"""Examples, or a function that gives them (an `input_fn`)."""


class BertEstimator:
    """A model for one task, in `run.model_dir`.

    Args:
      family: the task, such as `TextFamily(find_task("MRPC"))`.
      run: directory, cadence, seed, precision.
      learning: lengths, batch, rate, epochs.
      init: weights to start from, as `tf_bert.interop.source.open_source` takes them; None: `run.model_dir` has a run.
      world: the ranks that train together, from `tf_bert.distributed.init`.
      notify: is told what was loaded from `init`, and of checkpoints that are damaged.

    Raises:
      UsageError: if the directory holds a run of another task, model or settings.
      InputError: if `init` is damaged, or is None and there is no run.
    """

    def __init__(
        self,
        family: Family,
        run: RunConfig,
        learning: LearningConfig | None = None,
        init: str | None = None,
        world: World | None = None,
        notify: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.family = family
        self.run = run
        self.learning = learning or LearningConfig()
        self.world = world or World()
        self._notify = notify
        self.model_dir = Path(run.model_dir)
        self._checkpoints = CheckpointManager(self.model_dir / CHECKPOINTS_DIR, run.keep_checkpoints)
        self._newly_made: tuple[str, ...]  # tensors that nothing has trained
        self._step: int | None = None  # of the checkpoint whose weights the model has
        earlier = self._earlier_run(init)
        if earlier and self._checkpoints.latest()[0]:
            self._make(BertConfig(**earlier["model"]))
            self.tokenizer: Tokenizer = load_tokenizer(self.model_dir / TOKENIZER_DIR)
            self._init_lineage, self._newly_made = earlier["init"], ()
        elif init is None:
            raise InputError(
                f"{self.model_dir}: holds no finetuning run with a checkpoint; train one first, or name weights to "
                "start from"
            )
        else:
            for line in self._begin(init).lines():
                notify(line)
        if self.learning.max_seq_length > self.config.max_position_embeddings:
            raise UsageError(
                f"max_seq_length {self.learning.max_seq_length} is more than the model reads, "
                f"{self.config.max_position_embeddings} tokens; lower it"
            )
        self.predictor = Predictor(self.model, family, self.tokenizer, self.learning.max_seq_length, self.world)

    # --- opening ---------------------------------------------------------------------------------------------------

    def _begin(self, init: str) -> LoadReport:
        with open_source(init) as source:
            if source.vocabulary is None or source.lower_case is None:
                raise InputError(f"{init}: has no vocabulary; put the vocab.txt that it was trained with beside it")
            self._make(source.weights.config)
            weights = fit_labels(source.weights, self.family.labels, self.model.num_labels, required=False)
            report = assign_weights(self.model, weights, optional=MAY_BE_NEW)
            self.tokenizer = make_tokenizer(source.vocabulary, source.lower_case, strip_accents=source.strip_accents)
            self._init_lineage = source.lineage()
        self._newly_made = report.newly_made
        return report

    def _make(self, config: BertConfig) -> None:
        keras.utils.set_random_seed(self.run.seed)
        self.config = config
        self.model: BertModel = self.family.make_model(config, self.run.precision, self.run.seed)

    def _earlier_run(self, init: str | None) -> dict[str, Any] | None:
        """What an earlier process has written down of this run, if one has."""
        path = self.model_dir / RUN_FILE
        if not path.exists():
            return None
        earlier: dict[str, Any] = read_json(path)
        found = self._identity() | ({} if init is None else {"init": init})
        for key, value in found.items():
            before = earlier["init"]["source"] if key == "init" else earlier.get(key)
            if without_mounts(before) != without_mounts(value):
                raise UsageError(
                    f"{self.model_dir}: holds a run with {key} {before}, found {value}; choose another "
                    "model_dir, or remove this one to start over"
                )
        return earlier

    def _identity(self) -> dict[str, Any]:
        """What a run that goes on must share with its beginning; how long it trains and on what machine may change."""
        may_change = ("num_train_epochs", "microbatch_size")
        learning = {key: value for key, value in to_dict(self.learning).items() if key not in may_change}
        task = {"task": self.family.name, "labels": list(self.family.labels)}
        return {**task, **learning, "seed": self.run.seed, "precision": self.run.precision}

    @property
    def step(self) -> int:
        """Updates that the model's weights have behind them."""
        return self._step or 0

    # --- what people call ------------------------------------------------------------------------------------------

    def train(self, data: Data, max_steps: int | None = None) -> "BertEstimator":
        """Trains until the run has `max_steps` updates in all, from its newest checkpoint on.

        Args:
          data: the training examples.
          max_steps: None: `num_train_epochs` over the data.

        Raises:
          UsageError: if `max_steps` is less than 1, or the batch or the warmup does not fit.
          InputError: if there are no examples, a signal stops the run or its gradients are not finite.
        """
        self._train(data, max_steps, spec=None)
        return self

    def evaluate(self, data: Data) -> Metrics:
        """The task's metrics on examples with labels, with the weights of the newest checkpoint.

        Raises:
          InputError: if there are no examples, or the head of the task has never been trained.
        """
        self._need_trained_head()
        return self.predictor.evaluate(self._some_examples(data))

    def predict(self, data: Data | Iterable[Any]) -> Iterator[dict[str, Any]]:
        """What the model says of every example, in their order, as soon as some hundred are read.

        Raises:
          InputError: if the head of the task has never been trained.
        """
        self._need_trained_head()
        yield from self.predictor.predict(data() if callable(data) else data)

    def export_saved_model(self, export_dir: str | Path, precision: str = "float32") -> Path:
        """Writes a new version of a SavedModel that takes raw text, with the weights of the newest checkpoint.

        Args:
          export_dir: the directory of all versions.
          precision: see `tf_bert.serving.export.export`.

        Returns:
          The directory of the version.

        Raises:
          InputError: if the head of the task has never been trained, or the export cannot be written.
        """
        self._need_trained_head()
        with tempfile.TemporaryDirectory(prefix="tf_bert-") as temporary:
            model_dir = Path(temporary) / MODEL_DIR
            self._write(model_dir, self.step, self.step, {})
            return export(model_dir, export_dir, precision=precision, source=str(self.model_dir), notify=self._notify)

    # --- how it is done --------------------------------------------------------------------------------------------

    def _restore(self) -> bool:
        """Reads the newest checkpoint's weights, unless the model has them; returns whether there is one."""
        checkpoint, _ = self._checkpoints.latest()
        if checkpoint is None:
            return False
        if checkpoint.step != self._step:
            checkpoint.restore(self.model.variables, only_these=True)
            self._step = checkpoint.step
        return True

    def _need_trained_head(self) -> None:
        if not self._restore() and self._newly_made:
            raise InputError(f"{self.model_dir}: {self._newly_made[0]} has never been trained; train the model first")

    def _claim(self) -> None:
        """Writes down what a process needs that goes on with the run."""
        with reporting_disk_errors(self.model_dir):
            (self.model_dir / TOKENIZER_DIR).mkdir(parents=True, exist_ok=True)
        tokenizer = self.tokenizer
        save_tokenizer(
            self.model_dir / TOKENIZER_DIR, tokenizer.vocabulary, tokenizer.lower_case, tokenizer.strip_accents
        )
        known = {"model": dataclasses.asdict(self.config), "init": self._init_lineage}
        write_json(self.model_dir / RUN_FILE, {**self._identity(), **known})

    def _some_examples(self, data: Data) -> Sequence[Any]:
        found = data() if callable(data) else data
        examples = found if isinstance(found, Sequence) else list(found)
        if not examples:
            raise InputError(f"{self.family.name}: there are no examples; check the data")
        return examples

    def _train(self, data: Data, max_steps: int | None, spec: "EvalSpec | None") -> dict[str, dict[str, float]]:
        """Trains, evaluating as `spec` says; returns the metrics of the last evaluation by split."""
        world, is_first = self.world, self.world.rank == 0
        with world.together():
            encoded, _ = self.family.encode(
                self._some_examples(data), self.tokenizer, self.learning.max_seq_length, True
            )
            named = {name: self._some_examples(held_out) for name, held_out in spec.named().items()} if spec else {}
            steps_an_epoch = len(encoded) / self.learning.global_batch_size
            steps = self._count_steps(max_steps, steps_an_epoch)
            training = TrainingRun(self.model, self.family.objective, self.run, self.learning, steps, world)
            if is_first:
                self._claim()
        first_step = self._resume(training)
        evaluations = Evaluations(self.model_dir, self.family.primary_metric, first_step, writes=is_first)
        evaluations.entries = world.broadcast_object(evaluations.entries)  # other machines may not see the file

        def evaluate(step: int, log: RunLog) -> bool:
            if spec is None or evaluations.has(step):
                return False
            found = self._evaluate(named)
            for name, metrics in found.items():
                log.scalars(step, name, metrics.values, {})
                told = ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.values.items())
                log.line(f"{name} at step {step:,}: {told}{''.join(f' ({note})' for note in metrics.notes)}")
            values = {name: metrics.values for name, metrics in found.items()}
            if evaluations.add(step, values) and spec.keep_best and is_first:
                self._write(self.model_dir / BEST_DIR, step, steps, values)
            return is_over()

        def is_over() -> bool:
            if spec is None or not evaluations.entries:
                return False
            asked = spec.stop is not None and spec.stop(evaluations.entries)
            return bool(world.broadcast_object(bool(asked or evaluations.has_stalled(spec.early_stopping))))

        if not is_over():
            every = self.run.evaluate_every or math.ceil(steps_an_epoch)
            first_step = training.train(encoded, self._checkpoints, first_step, every, evaluate)
        self._step, self._newly_made = first_step, ()
        if is_first:
            self._write(self.model_dir / MODEL_DIR, first_step, steps, evaluations.last)
        return evaluations.last

    def _count_steps(self, max_steps: int | None, steps_an_epoch: float) -> int:
        if max_steps is not None and max_steps < 1:
            raise UsageError(f"max_steps: found {max_steps}, expected 1 or more")
        if not steps_an_epoch:
            raise InputError(f"{self.family.name}: no example can be trained on; check the data")
        return max_steps or math.ceil(steps_an_epoch * self.learning.num_train_epochs)

    def _evaluate(self, named: Mapping[str, Sequence[Any]]) -> dict[str, Metrics]:
        """Metrics by name of the set; what is wrong with them, all ranks meet at the same moment."""
        try:
            return {name: self.predictor.evaluate(held_out) for name, held_out in named.items()}
        except InputError as error:
            failure = error
        raise self.world.alike(failure)

    def _resume(self, training: TrainingRun) -> int:
        """Gives a run the state of the newest checkpoint, the same on every rank; returns the updates it holds."""
        with self.world.together():
            checkpoint, warnings = self._checkpoints.latest() if self.world.rank == 0 else (None, [])
            for warning in warnings:
                self._notify(warning)
            if checkpoint:
                checkpoint.restore(training.variables)
        step = int(self.world.broadcast_object(checkpoint.step if checkpoint else 0))
        if self.world.world_size > 1:
            self.world.broadcast_variables(training.variables)
            state = self.model.encoder.seed_generator.state
            state.assign(state + np.array([self.world.rank, 0]))  # a dropout of its own
        return step

    def _write(self, directory: Path, step: int, steps: int, metrics: Mapping[str, Mapping[str, float]]) -> None:
        updates = {"step": step, "num_train_steps": steps}
        settings = {"task": self.family.name, **to_dict(self.run), **to_dict(self.learning), **updates}
        lineage = {"finetuning": settings, "metrics": dict(metrics), "init": self._init_lineage}
        write_finetuned_model(directory, self.model, self.family, self.tokenizer, self.learning.max_seq_length, lineage)


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """What `train_and_evaluate` trains on."""

    data: Data
    """The training examples."""
    max_steps: int | None = None
    """Updates in all; None: the epochs that the estimator's `learning` says."""


@dataclasses.dataclass(frozen=True)
class EvalSpec:
    """What `train_and_evaluate` evaluates on, every `run.evaluate_every` steps and at the end."""

    data: Data | Mapping[str, Data]
    """Examples with labels; or several sets by name, of which the first decides which model is best."""
    early_stopping: int | None = None
    """Stop after so many evaluations in a row that are not better; None: do not."""
    keep_best: bool = True
    """Write the model directory of the best evaluation to `best`."""
    stop: Callable[[Sequence[Mapping[str, Any]]], bool] | None = None
    """Receives all evaluations so far (`step`, and `metrics` by name of the set); returns whether to stop."""

    def named(self) -> Mapping[str, Data]:
        """The sets by name."""
        return self.data if isinstance(self.data, Mapping) else {"dev": self.data}


def train_and_evaluate(
    estimator: BertEstimator, train_spec: TrainSpec, eval_spec: EvalSpec
) -> dict[str, dict[str, float]]:
    """Trains, evaluates on the way, keeps the best model and stops early, as the specs say.

    Called again it goes on from the newest checkpoint, and knows the evaluations that came before.

    Returns:
      Metrics of the last evaluation, by name of the set.

    Raises:
      InputError: as `BertEstimator.train`.
    """
    return estimator._train(train_spec.data, train_spec.max_steps, eval_spec)
