"""Tiny models of every kind with random heads, whose vocabulary spells any text, and their exports."""

import contextlib
import dataclasses
import fcntl
import functools
import string
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import keras
from hostile_texts import HOSTILE

from tf_bert.config import BertConfig, SpanConfig
from tf_bert.finetuning.entities import EntityFamily
from tf_bert.finetuning.family import Family
from tf_bert.finetuning.model_directory import write_finetuned_model
from tf_bert.finetuning.question_answering import QuestionFamily
from tf_bert.finetuning.tasks import custom_task, find_task
from tf_bert.finetuning.text import TextFamily
from tf_bert.models.directory import save_model
from tf_bert.models.model import BertModel
from tf_bert.models.pretraining import BertForPretraining
from tf_bert.serving.export import export
from tf_bert.serving.exported import Exported, load_export
from tf_bert.tokenization.tokenizer import make_tokenizer, save_tokenizer
from tf_bert.tokenization.vocab import SPECIAL_TOKENS, Vocabulary

WORDS = (
    *("the", "old", "people", "came", "from", "vienna", "anna", "berg", "and", "saw", "castle", "river", "before"),
    *("it", "fell", "garden", "violin", "winter"),
)
_SPELT = {character for text in HOSTILE for character in unicodedata.normalize("NFD", text.lower())}
_CHARACTERS = sorted(
    character for character in _SPELT | set(string.printable) if unicodedata.category(character)[0] not in "CZ"
)
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *_CHARACTERS, *(f"##{character}" for character in _CHARACTERS), *WORDS))
CONFIG = BertConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=48,
    initializer_range=0.3,  # wide, so that scores hang on the text
)
MAX_SEQ_LENGTH = 32
SPAN = SpanConfig(doc_stride=8, max_query_length=10, max_answer_length=12)
LINEAGE = {
    "finetuning": {"task": "SST-2", "learning_rate": 2e-5, "early_stopping": None},
    "metrics": {"dev": {"accuracy": 0.9128, "examples": 872.0}},
    "init": {"source": "runs/pretrain/model", "lineage": {}},
}
FAMILIES: dict[str, Family] = {
    "single": TextFamily(find_task("SST-2")),
    "pair": TextFamily(find_task("MNLI")),
    "multilabel": TextFamily(
        custom_task({"train": "t.tsv", "dev": "d.tsv"}, ["text"], "label", "multilabel", ["ä", "b c", "d"])
    ),
    "regression": TextFamily(find_task("STS-B")),
    "question": QuestionFamily(False, SPAN),
    "question or none": QuestionFamily(True, SPAN),
    "entities": EntityFamily(("O", "B-LOC", "B-PER", "I-LOC", "I-PER")),
}
"""Finetuned kinds; besides there are `pretrained` and `encoder`."""


def write_model(directory: Path, kind: str) -> Path:
    """Writes a model directory with random weights; returns it."""
    keras.utils.set_random_seed(3)
    if kind in FAMILIES:
        family = FAMILIES[kind]
        model = family.make_model(CONFIG, "float32", dropout_seed=0)
        tokenizer = make_tokenizer(VOCABULARY, lower_case=True)
        write_finetuned_model(directory, model, family, tokenizer, MAX_SEQ_LENGTH, LINEAGE)
        return directory
    directory.mkdir(parents=True)
    save_model(BertForPretraining(CONFIG) if kind == "pretrained" else BertModel(CONFIG), directory, {})
    save_tokenizer(directory, VOCABULARY, lower_case=True)
    return directory


@dataclasses.dataclass(frozen=True)
class Served:
    """A model and its export."""

    model_dir: Path
    version_dir: Path

    @functools.cached_property
    def loaded(self) -> Exported:
        """The export, loaded once."""
        return load_export(self.version_dir)


class ServedModels:
    """Models and exports by kind, each made once, also where several processes share the directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)

    @functools.cache  # noqa: B019 (there is one object a session)
    def model(self, kind: str) -> Path:
        directory = self._directory / kind.replace(" ", "-")
        with self._alone(directory.name):
            return directory if directory.exists() else write_model(directory, kind)

    @functools.cache  # noqa: B019
    def __call__(self, kind: str, precision: str = "float32") -> Served:
        model_dir = self.model(kind)
        directory = self._directory / f"export-{model_dir.name}-{precision}"
        with self._alone(directory.name):
            is_there = (directory / "1").exists()
            return Served(model_dir, directory / "1" if is_there else export(model_dir, directory, precision=precision))

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with open(self._directory / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
