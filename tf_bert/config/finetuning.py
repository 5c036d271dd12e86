"""The settings of finetuning: a run's directory and cadence, how it learns, and what it learns."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tf_bert.config.fields import (
    STRICT,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ServerAddress,
    Strings,
)


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """Where a finetuning run keeps what it makes, and how often."""

    model_dir: str = "runs/finetune"
    """The run's directory: checkpoints, logs and model directory. Called again, the run goes on from there."""
    log_every: PositiveInt = 50
    """Steps between two console lines and points in TensorBoard."""
    evaluate_every: NonNegativeInt = 0
    """Steps between two evaluations; 0: once an epoch."""
    checkpoint_every: PositiveInt = 500
    """Steps between two checkpoints, from which the run can resume."""
    keep_checkpoints: PositiveInt = 2
    """The newest checkpoints that stay."""
    stop_deadline_seconds: PositiveFloat | None = None
    """End at once, so long after a signal to stop, if the step and its checkpoint are not done by then; null: wait."""
    seed: NonNegativeInt = 12345
    """Seed of the new head's weights, the order of examples and dropout."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Keras dtype policy; mixed_float16 adds a dynamic loss scale."""
    jit_compile: bool | None = None
    """Compile forward and backward with XLA; null means on a GPU yes, on a CPU no."""


@dataclass(frozen=True, config=STRICT)
class LearningConfig:
    """How a model is finetuned. The defaults are those of the BERT paper (Devlin et al. 2018, appendix A.3)."""

    max_seq_length: Annotated[int, Field(ge=8)] = 128
    """Tokens of an example, special tokens included; longer texts are cut."""
    global_batch_size: PositiveInt = 32
    """Examples per optimizer update, over all ranks."""
    microbatch_size: PositiveInt | None = None
    """Rows of max_seq_length in a forward pass of a rank, which short examples share; null: its share of the batch."""
    learning_rate: NonNegativeFloat = 2e-5
    """Peak learning rate, reached at the end of warmup; then it falls in a straight line to 0."""
    num_train_epochs: PositiveFloat = 3.0
    """Passes over the training examples."""
    num_warmup_steps: NonNegativeInt | None = None
    """Steps over which the rate rises; null: a tenth of all."""
    weight_decay_rate: NonNegativeFloat = 0.01
    """Decoupled weight decay; bias and LayerNorm variables are excluded."""
    bias_correction: bool = True
    """As in `optimizer.bias_correction` of pretraining; small tasks are unstable without."""
    clip_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this global norm, after unscaling."""


@dataclass(frozen=True, config=STRICT)
class CustomTaskConfig:
    """A task of your own: its files and columns. Endings say how a file is read: .tsv, .csv or .jsonl."""

    kind: Literal["classification", "regression", "multilabel"] = "classification"
    """classification: one label; multilabel: any number of them; regression: a number."""
    text_columns: Strings = ("text",)
    """One column, or two for pairs of texts."""
    label_column: str = "label"
    """The column of labels."""
    index_column: str | None = None
    """The column that names rows in predictions; null: they are counted from 0."""
    labels: Strings = ()
    """Label words in the order of class ids; empty: those of the training file, sorted."""
    label_separator: str | None = None
    """multilabel: what is between labels in their column; null: it holds JSON lists."""
    columns: Strings = ()
    """Names of all columns, where the files have no header."""
    primary_metric: str = ""
    """The metric by which models are chosen; empty: the first that fits the kind."""


@dataclass(frozen=True, config=STRICT)
class SpanConfig:
    """Question answering (SQuAD)."""

    doc_stride: PositiveInt = 128
    """Tokens between the starts of two windows of a long text."""
    max_query_length: PositiveInt = 64
    """Tokens of a question; longer ones are cut."""
    n_best_size: PositiveInt = 20
    """Answers that are weighed against each other."""
    max_answer_length: PositiveInt = 30
    """Tokens of an answer."""
    null_threshold: float = 0.0
    """SQuAD 2.0: no answer is given if its score is more than this above the best answer's."""


@dataclass(frozen=True, config=STRICT)
class FinetuneConfig(RunConfig, LearningConfig):
    """`tf-bert finetune`: one task, one seed or several."""

    task: str = "MRPC"
    """A GLUE task, SQuAD, NER, or custom for files of your own."""
    data: str = "data/glue"
    """The directory of the task's files, or one that holds it."""
    init: str = "runs/pretrain/model"
    """Weights to start from: a model directory, a checkpoint of google-research or Model Garden, or an archive."""
    train_file: str | None = None
    """The training file, where it is not called as the task's usually is."""
    dev_file: str | None = None
    """The file to evaluate on."""
    test_file: str | None = None
    """A file to predict after training."""
    seeds: PositiveInt = 1
    """Runs with the seeds seed, seed + 1, ...; with more than one, each has a directory in model_dir."""
    early_stopping: PositiveInt | None = None
    """Stop after so many evaluations in a row that are not better; null: do not."""
    custom: CustomTaskConfig = CustomTaskConfig()
    """A task of your own."""
    squad: SpanConfig = SpanConfig()
    """Question answering."""
    tag_column: str | None = None
    """NER: the name of the tags' column, which the first line names; null: the last one, and there is no such line."""


@dataclass(frozen=True, config=STRICT)
class GlueConfig(RunConfig, LearningConfig):
    """`tf-bert glue`: the tasks of GLUE with several seeds, one table of results, and the files for the GLUE site."""

    tasks: Strings = ("all",)
    """Tasks to train, e.g. CoLA or MRPC; all: those whose files are there."""
    data: str = "data/glue"
    """The directory of all tasks, with one for each, as `tf-bert fetch glue` writes it."""
    init: str = "runs/pretrain/model"
    """Weights to start from: a model directory, a checkpoint of google-research or Model Garden, or an archive."""
    model_dir: str = "runs/glue"
    """The directory to write; run again, it goes on with what is missing. Each task has a directory in it."""
    seeds: PositiveInt = 3
    """Runs of every task, with the seeds seed, seed + 1, ..."""
    early_stopping: PositiveInt | None = None
    """Stop after so many evaluations in a row that are not better; null: do not."""
    from_mnli: bool = False
    """RTE, MRPC and STS-B start from what the first seed made of MNLI, not from init."""
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of single tasks by name, such as {RTE: {learning_rate: 3e-5, seeds: 5}}."""


@dataclass(frozen=True, config=STRICT)
class FetchGlueConfig:
    """`tf-bert fetch glue`: the public files of GLUE's tasks, downloaded, checked and unpacked."""

    tasks: Strings = ("all",)
    """Tasks to fetch, e.g. CoLA or MRPC; all: the ten of them."""
    output_dir: str = "data/glue"
    """The directory to write, with one for each task; files that are there and sound are not downloaded again."""
    published_checksums: bool = True
    """False: take the archives of a mirror that has packed the files anew; what came first is held against it later."""
    base_url: ServerAddress = "https://dl.fbaipublicfiles.com"
    """Server to ask; a mirror's address, with the path under which the mirror keeps glue/ and senteval/."""
    contact: Annotated[str, Field(pattern=r"^[ -~]*$")] = ""
    """Mail or web address that the server's operators may write to; empty: none."""
    timeout_seconds: Annotated[float, Field(gt=0.0, le=86_400.0)] = 60.0
    """A connection that is silent for this long is given up and tried again."""
    retries: Annotated[int, Field(ge=0, le=100)] = 5
    """A request is tried again this often in a row without getting further."""
    retry_wait_seconds: Annotated[float, Field(ge=0.0, le=60.0)] = 2.0
    """Pause before trying again; doubled every time, up to a minute. A server that asks for more gets more."""
