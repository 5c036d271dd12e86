"""Exports that the tests of this room share."""

import os

import pytest


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """Tiny models of every kind and their exports, see `served_models.py`; each is made when it is asked for."""
    from served_models import ServedModels

    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent  # that of all workers of the session
    return ServedModels(directory / "served")
