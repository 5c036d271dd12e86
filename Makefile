# `make` lists the targets. On a fresh machine `make demo` and `make test` do all the set-up they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := .cache/uv
# Two test modules at a time, the longest first (tests/conftest.py).
TWO_AT_A_TIME := -n 2 --dist loadfile --no-loadscope-reorder
# Where MPI is found later, set-up runs once more and builds Horovod with it.
SET_UP := $(VENV)/.set-up$(if $(shell command -v mpicxx),-with-mpi)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow bench lint format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(SET_UP) ## make .venv: pinned dependencies, the package in editable mode, Horovod (WITHOUT_HOROVOD=1 skips it)
	@echo "set-up: done; the command is $(BIN)/tf-bert"

demo: $(SET_UP) ## pretrain a small BERT on a real Wikipedia excerpt, at most 10 minutes on 2 cores
	@scripts/demo.sh

test: lint ## style, types and every test that is not slow
	$(BIN)/python -m pytest $(TWO_AT_A_TIME) -m "not slow"

test-slow: $(SET_UP) ## the tests that take minutes
	$(BIN)/python -m pytest $(TWO_AT_A_TIME) -m slow --durations=0 --durations-min=5

bench: $(SET_UP) ## every benchmark, hours; BENCH="--quick" or other words of benchmarks/run.py
	$(BIN)/python benchmarks/run.py $(BENCH)

lint: $(SET_UP) ## ruff and mypy, changing nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(SET_UP) ## mend style where ruff can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Horovod's requirements are locked, Horovod itself is not: scripts/build_horovod.sh builds and installs it.
lock: $(UV)/bin/uv ## resolve requirements.lock anew for Python 3.10 to 3.12
	HOROVOD_WITHOUT_PYTORCH=1 $(UV)/bin/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.10 \
		--extra horovod --extra interop --extra glue --extra serving --extra onnx --extra azure --extra azureml \
		--extra dask --extra mpi --extra dedup --extra plots --extra notebooks --extra jax --extra dev --no-emit-package horovod \
		--custom-compile-command "make lock" --output-file requirements.lock

clean: ## remove what set-up and the tools made (.venv, .cache); runs and data stay
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || { \
		echo "set-up: $(PYTHON) is not Python 3.10, 3.11 or 3.12; name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "set-up: $(PYTHON) -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# The lock is complete, so pip has nothing to resolve (--no-deps).
$(SET_UP): requirements.lock pyproject.toml setup.py scripts/build_horovod.sh | $(BIN)/python
	@echo "set-up: installing pinned dependencies into $(VENV) (once, some minutes)"
	@$(BIN)/python -m pip install -qq --no-deps -r requirements.lock || { \
		echo "set-up: pip could not install requirements.lock, see above; run make again to go on" >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e . || { \
		echo "set-up: pip could not install this package, see above" >&2; exit 1; }
	@scripts/build_horovod.sh $(VENV)
	@touch $@

$(UV)/bin/uv:
	$(PYTHON) -m venv $(UV)
	$(UV)/bin/python -m pip install -qq uv
