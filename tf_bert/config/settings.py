"""The settings of models and runs: frozen dataclasses that check themselves. A field's docstring is its help text."""

import re
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from tf_bert.config.fields import (
    STRICT,
    MaskedShare,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    SpanWords,
    check_spans,
)
from tf_bert.config.optimization import OptimizerConfig


@dataclass(frozen=True, config=STRICT)
class BertConfig:
    """Shape of the encoder; the fields of the original release's `bert_config.json`."""

    vocab_size: PositiveInt = 30522
    """Rows of the token embedding; at least the number of tokens in the vocabulary."""
    hidden_size: PositiveInt = 768
    """Width of the residual stream; a multiple of num_attention_heads."""
    num_hidden_layers: PositiveInt = 12
    """Transformer blocks."""
    num_attention_heads: PositiveInt = 12
    """Attention heads per block."""
    intermediate_size: PositiveInt = 3072
    """Width of the feed-forward layer inside a block."""
    hidden_act: Literal["gelu", "gelu_new", "relu"] = "gelu"
    """Activation of the feed-forward layer: gelu (erf), gelu_new (tanh approximation) or relu."""
    hidden_dropout_prob: Probability = 0.1
    """Dropout after the embeddings and after each sub-layer."""
    attention_probs_dropout_prob: Probability = 0.1
    """Dropout on the attention probabilities."""
    max_position_embeddings: PositiveInt = 512
    """Rows of the position embedding: the longest sequence the model can read."""
    type_vocab_size: PositiveInt = 2
    """Rows of the segment embedding."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the truncated normal that weights start from."""
    layer_norm_eps: PositiveFloat = 1e-12
    """Added to the variance in LayerNorm."""
    tie_word_embeddings: bool = True
    """The masked-LM head's output matrix is the token embedding; false: a matrix of its own."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}; choose e.g. num_attention_heads {_largest_divisor(self)}"
            )


def _shape(layers: int, hidden_size: int) -> dict[str, int]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden_size,
        "num_attention_heads": hidden_size // 64,
        "intermediate_size": 4 * hidden_size,
    }


# Devlin et al. 2019 (base, large) and Turc et al. 2019.
MODEL_SIZES = {
    "tiny": _shape(2, 128),
    "mini": _shape(4, 256),
    "small": _shape(4, 512),
    "medium": _shape(8, 512),
    "base": _shape(12, 768),
    "large": _shape(24, 1024),
}


def _largest_divisor(config: BertConfig) -> int:
    return next(n for n in range(config.num_attention_heads, 0, -1) if config.hidden_size % n == 0)


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """What a pretraining run reads, and how it is masked."""

    data_dir: str = "data/prepared"
    """A directory that `tf-bert prepare` wrote."""
    masked_lm_prob: MaskedShare = 0.15
    """Share of a row's tokens that is chosen for the masked-LM loss. Original rows keep the masks they have."""
    max_predictions_per_seq: NonNegativeInt = 0
    """At most this many tokens of a row are chosen; 0 stands for max_seq_length times masked_lm_prob, rounded up."""
    whole_word_masking: bool = False
    """All pieces of a word are chosen, or none."""
    mean_span_words: SpanWords = 1.0
    """With whole_word_masking: choose runs of so many words on average, of geometric lengths; 1 for single words."""
    shuffle_shards: PositiveInt = 8
    """Rows are shuffled jointly within this many shards, which are held in memory."""

    def __post_init__(self) -> None:
        check_spans(self.mean_span_words, self.whole_word_masking)


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """Size, length and arithmetic of a run."""

    num_train_steps: PositiveInt = 1_000_000
    """Optimizer updates in the whole run."""
    global_batch_size: PositiveInt = 256
    """Rows per optimizer update, over all ranks."""
    microbatch_size: PositiveInt = 32
    """Rows in one forward pass of one rank; accumulation_steps follows from it."""
    time_budget_hours: PositiveFloat | None = None
    """End the run after so many hours of training, evaluation included, even before num_train_steps; null: do not."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Keras dtype policy; mixed_float16 adds a dynamic loss scale."""
    jit_compile: bool | None = None
    """Compile forward and backward with XLA; null means on a GPU yes, on a CPU no."""
    activation_checkpointing: bool = False
    """Recompute each block's activations in the backward pass: less memory, about a third more time."""
    all_reduce_precision: Literal["float32", "float16"] = "float32"
    """How gradients travel between ranks; float16 halves the traffic and rounds them to 11 bits."""
    rank_timeout_seconds: PositiveFloat = 1800.0
    """Several ranks: end the run when one hears nothing of the others so long; more than the longest step or save."""
    max_bad_steps: PositiveInt = 10
    """Go back to the last checkpoint after this many updates in a row with a gradient that is not finite."""
    loss_spike_factor: Annotated[float, Field(gt=1.0)] | None = 3.0
    """Go back after a loss so many times the median of the last 100 updates; null: whatever the loss."""
    max_rollbacks: NonNegativeInt = 3
    """How often to go back, past the data of the updates in between, before the run ends."""
    seed: NonNegativeInt = 12345
    """Seed of initial weights, data order, masks and dropout."""


@dataclass(frozen=True, config=STRICT)
class CadenceConfig:
    """How often a run logs, evaluates and saves, in steps."""

    log_every: PositiveInt = 100
    """Console line, metrics.jsonl and TensorBoard."""
    evaluate_every: PositiveInt = 5_000
    """Evaluation on the validation split."""
    evaluation_batches: NonNegativeInt = 0
    """Batches of microbatch_size rows in one evaluation; 0 means the whole validation split."""
    checkpoint_every: PositiveInt = 5_000
    """Checkpoint, from which the run can resume."""
    keep_checkpoints: PositiveInt = 3
    """The newest checkpoints that stay; older ones are removed."""
    keep_every: NonNegativeInt = 0
    """Checkpoints of steps that are multiples of this stay for good; 0: none do."""
    stop_deadline_seconds: PositiveFloat | None = None
    """End at once, so long after a signal to stop, if the step and its checkpoint are not done by then; null: wait."""

    def __post_init__(self) -> None:
        if self.keep_every % self.checkpoint_every:
            nearest = max(1, round(self.keep_every / self.checkpoint_every)) * self.checkpoint_every
            raise ValueError(
                f"keep_every {self.keep_every} is not a multiple of checkpoint_every {self.checkpoint_every}, so most "
                f"of its steps have no checkpoint to keep; choose e.g. {nearest}"
            )


def _step_range(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"([1-9][0-9]*):([1-9][0-9]*)", value)):
        if int(match[1]) > int(match[2]):
            raise ValueError(f"found {value!r}, whose first step comes after its last; write {match[2]}:{match[1]}")
    elif value is not None:  # YAML reads 10:20 without quotes as minutes and seconds
        raise ValueError(f"found {value!r}, expected the first and the last step in quotes, such as '10:20'")
    return value


@dataclass(frozen=True, config=STRICT)
class StageConfig:
    """One stage of a run: what it has other than the whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Of its directory in output_dir, where its checkpoints, logs and model are."""
    optimizer_state: Literal["reset", "carry"] = "reset"
    """Whether the optimizer begins anew, or with the moments and the count of updates of the stage before."""
    data: dict[str, Any] = Field(default_factory=dict)
    """Settings of the group data in this stage."""
    optimizer: dict[str, Any] = Field(default_factory=dict)
    """Settings of the group optimizer; the schedule counts the steps of the stage."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Settings of the group training."""
    cadence: dict[str, Any] = Field(default_factory=dict)
    """Settings of the group cadence."""


@dataclass(frozen=True, config=STRICT)
class PretrainConfig:
    """`tf-bert pretrain`: one run."""

    output_dir: str = "runs/pretrain"
    """The run's directory: checkpoints, logs, report and model directory. Run again, it goes on from there."""
    init: str | None = None
    """Weights to start from: a model directory, a checkpoint of google-research or Model Garden, or an archive."""
    replace_vocabulary: bool = False
    """With init: the data may have another vocabulary; new tokens begin as the mean of their old pieces."""
    model_size: Literal["tiny", "mini", "small", "medium", "base", "large"] | None = None
    """Layers, width, heads and feed-forward width by the name of a published size; what `model` says goes before."""
    model: BertConfig = BertConfig()
    """Shape of the encoder; with init, that of the source."""
    data: DataConfig = DataConfig()
    """Rows and masks."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer and schedule."""
    training: TrainingConfig = TrainingConfig()
    """Steps, batch, precision."""
    cadence: CadenceConfig = CadenceConfig()
    """Logging, evaluation, checkpoints."""
    stages: tuple[StageConfig, ...] = ()
    """Runs one after the other, each from the weights of the one before: a list of name, optimizer_state and groups."""
    profile_steps: Annotated[str | None, pydantic.BeforeValidator(_step_range)] = None
    """First and last step for TensorFlow's profiler, such as '10:20', for TensorBoard's profile page; null: none."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _lay_size_under_model(cls, given: Any) -> Any:
        values = given.kwargs if isinstance(given, ArgsKwargs) else given  # of a call, or of a file
        if not isinstance(values, dict) or not isinstance(values.get("model", {}), dict):
            return given
        size = values.get("model_size")
        shape = MODEL_SIZES.get(size, {}) if isinstance(size, str) else {}
        return {**values, "model": {**shape, **values.get("model", {})}}

    def __post_init__(self) -> None:
        if self.replace_vocabulary and self.init is None:
            raise ValueError("replace_vocabulary is about the weights that init names, but init is null; set it")
        optimizer, num_train_steps = self.optimizer, self.training.num_train_steps
        if optimizer.num_warmup_steps > (optimizer.schedule_steps or num_train_steps):
            spanned = "optimizer.schedule_steps" if optimizer.schedule_steps else "training.num_train_steps"
            raise ValueError(
                f"optimizer.num_warmup_steps {optimizer.num_warmup_steps} exceeds {spanned} "
                f"{optimizer.schedule_steps or num_train_steps}; shorten the warmup or train longer"
            )
        if optimizer.schedule_steps and optimizer.schedule_start + num_train_steps > optimizer.schedule_steps:
            raise ValueError(
                f"optimizer.schedule_steps {optimizer.schedule_steps} ends before the run, which begins at "
                f"schedule_start {optimizer.schedule_start} and has training.num_train_steps {num_train_steps}; raise "
                f"schedule_steps to {optimizer.schedule_start + num_train_steps}"
            )
        warmup_hours, budget_hours = self.optimizer.warmup_hours, self.training.time_budget_hours
        if warmup_hours is not None and (budget_hours is None or warmup_hours >= budget_hours):
            raise ValueError(
                f"optimizer.schedule time_budget warms up for {warmup_hours:g} hours, but training.time_budget_hours "
                f"is {'null' if budget_hours is None else format(budget_hours, 'g')}; give a longer budget"
            )
        accumulation_steps(self.training, world_size=1)


def accumulation_steps(training: TrainingConfig, world_size: int) -> int:
    """Microsteps per optimizer update on each rank.

    Raises:
      ValueError: if the global batch does not divide evenly.
    """
    per_microstep = training.microbatch_size * world_size
    if training.global_batch_size % per_microstep:
        nearest = max(1, round(training.global_batch_size / per_microstep)) * per_microstep
        raise ValueError(
            f"training.global_batch_size {training.global_batch_size} is not a multiple of training.microbatch_size "
            f"{training.microbatch_size} x {world_size} ranks = {per_microstep}; the nearest that is: {nearest}"
        )
    return training.global_batch_size // per_microstep
