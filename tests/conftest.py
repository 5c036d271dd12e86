"""Fixtures shared by all rooms: the real dump excerpt, and real data that lies beside the checkout, if it does."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Where mlflow sets up its logging, all handlers are closed, and absl's then closes its stream, which is pytest's own.
os.environ["MLFLOW_CONFIGURE_LOGGING"] = "false"

LONGEST = [
    "test_pretraining_faults",
    "test_notebooks",
    "test_rehearse_endings",
    "test_pretraining",
    "test_finetune_runs",
    "test_train_step",
    "test_rollback",
    "test_server_load",
    "test_initial_weights",
    "test_memory",
    "test_engines",
    "test_stages",
    "test_glue",
    "test_sweep",
    "test_estimator",
]
"""Modules that take a minute and more: where modules run side by side, none of them is to be the last and alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest modules first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def wikipedia_dump() -> Path:
    """A real English Wikipedia dump excerpt (206 pages, 106 articles, 6.3 MB of XML), shipped by gensim."""
    import gensim

    name = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
    return Path(gensim.__file__).parent / "test" / "test_data" / name


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real GLUE and WikiText files that may lie beside the checkout."""
    directory = ROOT.parent / "shared" / "data"
    if not directory.is_dir():
        pytest.skip("the folder with real GLUE and WikiText files is not beside this checkout")
    return directory


class SmallDisk:
    """A file system of its own in memory, made by calling it with its size; called again, it becomes another size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_mounted = False

    def __call__(self, kilobytes: int) -> Path:
        options = f"size={kilobytes}k" + (",remount" if self.is_mounted else "")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"only root can mount a small disk here: {done.stderr.strip()}")
        self.is_mounted = True
        return self.path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk that is soon full."""
    path = tmp_path / "small_disk"
    path.mkdir()
    disk = SmallDisk(path)
    yield disk
    if disk.is_mounted:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture(scope="session")
def data_dir(wikipedia_dump, tmp_path_factory) -> Path:
    """A data directory made of the first articles of the excerpt: rows of 32 tokens, 600 tokens of vocabulary."""
    from tf_bert.config import PrepareConfig, VocabTrainConfig
    from tf_bert.corpus.blocks import Part
    from tf_bert.corpus.read_report import ReadReport
    from tf_bert.corpus.wikipedia import read_wikipedia
    from tf_bert.pretraining_data.build import build
    from tf_bert.tokenization.vocab import train_vocabulary

    directory = tmp_path_factory.mktemp("data")
    texts = [
        document.text[:4000]
        for _, document in zip(range(24), read_wikipedia(Part(wikipedia_dump), ReadReport()), strict=False)
    ]
    (directory / "articles.txt").write_text("\n\n".join(texts), encoding="utf-8")
    vocabulary = train_vocabulary(lambda: texts, VocabTrainConfig(input="unused", vocab_size=600))
    vocabulary.save(directory / "vocab.txt")
    config = PrepareConfig(
        input=str(directory / "articles.txt"),
        output_dir=str(directory / "prepared"),
        vocab=str(directory / "vocab.txt"),
        max_seq_length=32,
        validation_fraction=0.2,
        shard_megabytes=0.02,
    )
    build(config)
    return directory / "prepared"
