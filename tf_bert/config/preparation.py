"""The settings of everything before training: fetching, vocabularies, preparing."""

import re
from typing import Annotated, Literal

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
    ServerAddress,
    SpanWords,
    Strings,
    check_spans,
)
from tf_bert.config.quality import QualityConfig


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
    base_url: ServerAddress = "https://dumps.wikimedia.org"
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
    strip_accents: bool | None = None
    """Whether a WordPiece vocabulary was made for text without accents; null: as lower_case says."""
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
        check_spans(self.mean_span_words, self.whole_word_masking)


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
