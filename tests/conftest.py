"""Fixtures shared by all rooms: the real dump excerpt, and real data that lies beside the checkout, if it does."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def wikipedia_dump() -> Path:
    """A real English Wikipedia dump excerpt (211 pages, 106 articles, 6.3 MB of XML), shipped by gensim."""
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
