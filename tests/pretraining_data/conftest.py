"""A small corpus with its vocabulary, and data directories built from it."""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tf_bert.config import PrepareConfig
from tf_bert.tokenization.vocab import SPECIAL_TOKENS

WORDS = sorted({"".join(letters) for letters in np.random.default_rng(0).choice(list("abcdefghij"), (300, 5))})


def write_random_corpus(path: Path, documents: int, seed: int = 0) -> Path:
    """A text file of random documents, blank lines between them and one sentence a line."""
    rng = np.random.default_rng(seed)
    texts = [
        "\n".join(" ".join(rng.choice(WORDS, rng.integers(3, 20))) for _ in range(rng.integers(2, 20)))
        for _ in range(documents)
    ]
    path.write_text("\n\n".join(texts) + "\n")
    return path


@pytest.fixture(scope="session")
def write_corpus() -> Callable[[Path, int], Path]:
    """`write_random_corpus`, for tests that want another size."""
    return write_random_corpus


@pytest.fixture(scope="session")
def vocabulary_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Special tokens, some words of the corpus, and letters to spell the others with."""
    letters = string.ascii_lowercase
    tokens = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), *WORDS[:200]]
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n")
    return path


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 documents."""
    return write_random_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt", 300)


@pytest.fixture(scope="session")
def prepare_config(vocabulary_file: Path, corpus_file: Path) -> Callable[..., PrepareConfig]:
    """Makes a configuration of the small corpus: rows of 64 tokens in about ten shards, a tenth held out."""

    def make(output_dir: Path, **changes: Any) -> PrepareConfig:
        values: dict[str, Any] = {
            "input": (str(corpus_file),),
            "output_dir": str(output_dir),
            "vocab": str(vocabulary_file),
            "max_seq_length": 64,
            "validation_fraction": 0.1,
            "shard_megabytes": 0.02,
            "sentence_splitter": "line",
        }
        return PrepareConfig(**values | changes)

    return make


@pytest.fixture(scope="session")
def data_dir(prepare_config: Callable[..., PrepareConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory built from the small corpus, to be read only."""
    from tf_bert.pretraining_data.build import build

    output_dir = tmp_path_factory.mktemp("prepared") / "data"
    build(prepare_config(output_dir))
    return output_dir
