"""Exports that the tests of this room share."""

import pytest


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """Tiny models of every kind and their exports, see `served_models.py`; each is made when it is asked for."""
    from served_models import ServedModels

    return ServedModels(tmp_path_factory.mktemp("served"))
