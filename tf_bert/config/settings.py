"""The settings of every command, as frozen dataclasses that check themselves. A field's docstring is its help text."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass

from tf_bert.config.fields import (
    STRICT,
    MaskedShare,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    SpanWords,
    Strings,
)
from tf_bert.config.quality import QualityConfig


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

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}; choose e.g. num_attention_heads {_largest_divisor(self)}"
            )


def _largest_divisor(config: BertConfig) -> int:
    return next(n for n in range(config.num_attention_heads, 0, -1) if config.hidden_size % n == 0)


@dataclass(frozen=True, config=STRICT)
class CorpusConfig:
    """Where raw text comes from and how it is cut into documents and sentences."""

    input: Strings
    """Files, directories or globs: MediaWiki dumps (.xml, .xml.bz2), plain text (.txt and others), JSONL (.jsonl)."""
    format: Literal["auto", "wikipedia", "text", "jsonl"] = "auto"
    """How to read the input; auto goes by the file's name."""
    document_separator: Literal["blank_line", "file"] = "blank_line"
    """Plain text only: documents are separated by blank lines, or a file is one document."""
    sentence_splitter: Literal["punkt", "line"] = "punkt"
    """punkt finds sentence boundaries; line takes each line as one sentence."""
    language: str = "english"
    """Language of the punkt model, by its English name."""
    max_skipped_documents: NonNegativeInt = 0
    """Pass over this many documents that cannot be read, such as lines that are not JSON; 0: the first is an error."""


def _wiki_code(value: object) -> object:
    if value is False:
        raise ValueError('YAML reads no as false; write "no", in quotes')
    if isinstance(value, str) and not re.fullmatch(r"[a-z][a-z0-9_-]*", value):
        raise ValueError(f"found {value!r}, expected the code in a Wikipedia's address, such as en, de or simple")
    return value


def _dump_date(value: object) -> object:
    text = str(value) if isinstance(value, int) else value  # YAML reads 20260101 as a number
    if isinstance(text, str) and not re.fullmatch(r"latest|[0-9]{8}", text):
        raise ValueError(f"found {text!r}, expected latest or a day such as 20260101")
    return text


def _base_url(value: object) -> object:
    label = r"[A-Za-z0-9-]{1,63}"
    pattern = rf"https?://({label}(\.{label})*|\[[0-9a-f:.]+\])(:[0-9]{{1,5}})?(/[A-Za-z0-9._~/-]*)?"
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ValueError(f"found {value!r}, expected an address such as https://dumps.wikimedia.org")
    _ = urlsplit(value).port  # raises if it is out of range
    return value.rstrip("/")


@dataclass(frozen=True, config=STRICT)
class FetchWikipediaConfig:
    """`tf-bert fetch wikipedia`: the articles of one Wikipedia, downloaded and checked."""

    language: Annotated[str, pydantic.BeforeValidator(_wiki_code)] = "en"
    """The code in the Wikipedia's address: en, de, simple."""
    date: Annotated[str, pydantic.BeforeValidator(_dump_date)] = "latest"
    """Day of the dump as YYYYMMDD; latest: the newest whose articles are complete."""
    output_dir: str = "data/wikipedia"
    """The directory to write; files that are there and sound are not downloaded again."""
    list: bool = False
    """Show the dump's files and sizes, and download nothing."""
    files: str = "*"
    """Only files whose names match this pattern, e.g. `*stream1.xml*`; put it in quotes."""
    multistream: bool = True
    """True: the dump made of many short bz2 streams, between which it can be split. False: one stream a file."""
    single_file: bool = False
    """True: one large file instead of the parts that the dump of a large Wikipedia comes in."""
    base_url: Annotated[str, pydantic.BeforeValidator(_base_url)] = "https://dumps.wikimedia.org"
    """Server to ask; a mirror's address, with the path under which the mirror keeps the directories of the wikis."""
    contact: Annotated[str, Field(pattern=r"^[ -~]*$")] = ""
    """Mail or web address that the server's operators may write to, sent along as they ask for; empty: none."""
    timeout_seconds: Annotated[float, Field(gt=0.0, le=86_400.0)] = 60.0
    """A connection that is silent for this long is given up and tried again."""
    retries: Annotated[int, Field(ge=0, le=100)] = 5
    """A request is tried again this often in a row without getting further."""
    retry_wait_seconds: Annotated[float, Field(ge=0.0, le=60.0)] = 2.0
    """Pause before trying again; doubled every time, up to a minute. A server that asks for more gets more."""


@dataclass(frozen=True, config=STRICT)
class VocabTrainConfig(CorpusConfig):
    """`tf-bert vocab train`: a vocabulary from a corpus."""

    kind: Literal["wordpiece", "sentencepiece"] = "wordpiece"
    """wordpiece: the original BERT's. sentencepiece: for languages without spaces, or to keep case and accents."""
    output: str = "vocab.txt"
    """The file to write: one token a line; or a SentencePiece model, whose name has to end with .model."""
    vocab_size: PositiveInt = 30522
    """Number of tokens, the special ones included."""
    lower_case: bool = True
    """True: an uncased vocabulary (text is lower-cased, accents are stripped). False: cased."""
    min_frequency: PositiveInt = 2
    """WordPiece only: a pair of pieces seen less often than this is not merged."""
    limit_alphabet: PositiveInt = 1000
    """WordPiece only: at most this many different characters get a token of their own; the rarest go first."""
    sentencepiece_model: Literal["unigram", "bpe"] = "unigram"
    """SentencePiece only: the kind of model."""
    character_coverage: Annotated[float, Field(ge=0.9, le=1.0)] = 0.9995
    """SentencePiece only: share of the text's characters that get a piece of their own; 1 where there are few."""
    max_training_lines: PositiveInt = 5_000_000
    """SentencePiece only: train on so many lines at most, drawn from all; they are held in memory."""

    def __post_init__(self) -> None:
        is_model = self.output.endswith(".model")
        if is_model != (self.kind == "sentencepiece"):
            other = "does not end with .model, e.g. vocab.txt" if is_model else "ends with .model, e.g. vocab.model"
            raise ValueError(f"output {self.output} with kind {self.kind}: expected a name that {other}")


@dataclass(frozen=True, config=STRICT)
class VocabReportConfig(CorpusConfig):
    """`tf-bert vocab report`: how one or two vocabularies fit a corpus."""

    vocab: str = "vocab.txt"
    """The vocabulary file: the corpus's own beside other_vocab; alone, that of a public checkpoint."""
    other_vocab: str | None = None
    """The vocabulary file of a public checkpoint to compare with; null: none."""
    lower_case: bool = True
    """True if vocab is uncased, false if it is cased."""
    other_lower_case: bool = True
    """True if other_vocab is uncased, false if it is cased."""
    output_png: str | None = "vocab_report.png"
    """The picture to write; null: none."""
    words: PositiveInt = 20
    """List this many of the words that a vocabulary breaks worst."""
    max_megabytes: PositiveFloat = 100.0
    """Read at most this much text, from all files in proportion to their sizes."""


@dataclass(frozen=True, config=STRICT)
class PrepareConfig(CorpusConfig):
    """`tf-bert prepare`: a corpus into TFRecord shards of rows and a manifest."""

    output_dir: str = "data/prepared"
    """The directory to write: shards, manifest.json and the vocabulary."""
    vocab: str = "vocab.txt"
    """The vocabulary: a WordPiece file, or a SentencePiece model if its name ends with .model."""
    lower_case: bool = True
    """True for an uncased WordPiece vocabulary, false for a cased one; a SentencePiece model says it itself."""
    max_seq_length: Annotated[int, Field(ge=8)] = 512
    """Tokens in a row, special tokens included."""
    short_seq_prob: Probability = 0.1
    """Share of examples that aim for a random shorter length, as in the original release."""
    next_sentence: bool = True
    """True: examples are pairs of segments with a next-sentence label. False: single segments, for masked LM alone."""
    next_sentence_random_prob: Probability = 0.5
    """Share of pairs whose second segment comes from another document."""
    row_format: Literal["packed", "original"] = "packed"
    """packed: examples share rows and are masked when loaded; original: one a row, padded and masked for good."""
    max_examples_per_row: PositiveInt = 8
    """Packed rows only: at most this many examples are packed into one row."""
    dupe_factor: PositiveInt = 10
    """Original rows only: passes over the training documents, each with examples and masks of its own."""
    masked_lm_prob: MaskedShare = 0.15
    """Original rows only: share of a row's tokens that is chosen for the masked-LM loss."""
    max_predictions_per_seq: NonNegativeInt = 0
    """Original rows only: at most this many are chosen; 0: max_seq_length times masked_lm_prob, rounded up."""
    whole_word_masking: bool = False
    """Original rows only: all pieces of a word are chosen, or none."""
    mean_span_words: SpanWords = 1.0
    """Original rows only: choose runs of so many whole words on average; 1 for single words."""
    validation_fraction: Probability = 0.01
    """Share of documents held out for validation, chosen by the document's hash."""
    shard_megabytes: PositiveFloat = 8.0
    """Aim for shards of about this much plain text; it also bounds the memory of one worker."""
    quality: QualityConfig = QualityConfig()
    """Which documents are left out."""
    seed: NonNegativeInt = 12345
    """Seed of everything random in the build."""
    workers: NonNegativeInt = 1
    """Processes that build; 0 means one a core. Their number changes no byte of the output."""
    engine: Literal["local", "dask", "mpi"] = "local"
    """Who builds: processes on this machine, the workers of a dask cluster, or the ranks that mpirun started."""
    scheduler: str | None = None
    """dask: the scheduler's address, e.g. tcp://host:8786; null: what DASK_SCHEDULER_ADDRESS says."""
    scheduler_file: str | None = None
    """dask: the file that `dask scheduler --scheduler-file` has written, in the place of an address."""
    task_index: NonNegativeInt | None = None
    """Array jobs: which of num_tasks this process is, from 0."""
    num_tasks: PositiveInt = 1
    """Array jobs: how many processes, each started on its own, build the directory together."""
    wait_minutes: NonNegativeFloat = 60.0
    """Array jobs: wait this long for the other tasks to have read their input."""

    def __post_init__(self) -> None:
        if self.validation_fraction >= 1.0:
            raise ValueError("validation_fraction 1.0 leaves nothing to train on; choose e.g. 0.01")
        _check_engine(self)
        _check_spans(self)


def _check_engine(config: PrepareConfig) -> None:
    named = config.scheduler or config.scheduler_file
    if named and config.engine != "dask":
        raise ValueError(f"a scheduler, {named}, is named but engine is {config.engine}; set it to dask")
    if config.scheduler and config.scheduler_file:
        raise ValueError(f"scheduler {config.scheduler} and scheduler_file {config.scheduler_file}: name one of them")
    if config.engine != "local" and config.workers != 1:
        raise ValueError(
            f"workers {config.workers} counts processes of engine local; engine {config.engine} has as many as the "
            "cluster was started with, so leave workers out"
        )
    if config.num_tasks == 1:
        if config.task_index:
            raise ValueError(f"task_index {config.task_index} is of how many? set num_tasks too")
        return
    if config.engine != "local":
        raise ValueError(f"num_tasks {config.num_tasks} needs engine local, found {config.engine}; choose one of them")
    if config.task_index is None or config.task_index >= config.num_tasks:
        found = "none" if config.task_index is None else config.task_index
        raise ValueError(
            f"task_index: found {found}, expected 0 to {config.num_tasks - 1}, as num_tasks is {config.num_tasks}"
        )


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
        _check_spans(self)


def _check_spans(config: PrepareConfig | DataConfig) -> None:
    if config.mean_span_words > 1.0 and not config.whole_word_masking:
        raise ValueError(
            f"mean_span_words {config.mean_span_words:g} chooses runs of whole words, but whole_word_masking is false; "
            "set it to true, or mean_span_words to 1"
        )


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """AdamW with global-norm clipping (Loshchilov and Hutter 2019), and its learning-rate schedule."""

    learning_rate: NonNegativeFloat = 1e-4
    """Peak learning rate, reached at the end of warmup; never scaled behind your back."""
    num_warmup_steps: NonNegativeInt = 10_000
    """Steps over which the rate rises linearly from 0."""
    end_learning_rate: NonNegativeFloat = 0.0
    """Rate at the last step of the linear decay."""
    weight_decay_rate: NonNegativeFloat = 0.01
    """Decoupled weight decay; bias and LayerNorm variables are excluded."""
    beta_1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay of the first-moment average."""
    beta_2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Decay of the second-moment average."""
    epsilon: PositiveFloat = 1e-6
    """Added to the root of the second moment."""
    clip_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this global norm, after unscaling."""


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """Size, length and arithmetic of a run."""

    num_train_steps: PositiveInt = 1_000_000
    """Optimizer updates in the whole run."""
    global_batch_size: PositiveInt = 256
    """Rows per optimizer update, over all ranks."""
    microbatch_size: PositiveInt = 32
    """Rows in one forward pass of one rank; accumulation_steps follows from it."""
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
    """End the run after this many updates in a row with a gradient that is not finite."""
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


@dataclass(frozen=True, config=STRICT)
class PretrainConfig:
    """`tf-bert pretrain`: one run."""

    output_dir: str = "runs/pretrain"
    """The run's directory: checkpoints, logs, report and model directory. Run again, it goes on from there."""
    model: BertConfig = BertConfig()
    """Shape of the encoder."""
    data: DataConfig = DataConfig()
    """Rows and masks."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer and schedule."""
    training: TrainingConfig = TrainingConfig()
    """Steps, batch, precision."""
    cadence: CadenceConfig = CadenceConfig()
    """Logging, evaluation, checkpoints."""

    def __post_init__(self) -> None:
        if self.optimizer.num_warmup_steps > self.training.num_train_steps:
            raise ValueError(
                f"optimizer.num_warmup_steps {self.optimizer.num_warmup_steps} exceeds training.num_train_steps "
                f"{self.training.num_train_steps}; shorten the warmup or train longer"
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
