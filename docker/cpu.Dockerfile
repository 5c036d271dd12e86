# tf_bert for a machine without GPUs: a laptop, or data preparation.
#
#   docker build -f docker/cpu.Dockerfile -t tf_bert:cpu .
FROM python:3.11-slim

# g++ and make build Horovod (with Gloo), for several ranks on one machine: tf-bert pretrain --ranks 2.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/tf_bert
ENV PATH=/opt/tf_bert/.venv/bin:$PATH PIP_NO_CACHE_DIR=1

# The package itself is not there yet, so `make setup` would fail: these are its steps, in an order that caches well.
COPY requirements.lock ./
RUN python3 -m venv .venv && python -m pip install --no-deps -r requirements.lock
COPY scripts/build_horovod.sh scripts/
RUN scripts/build_horovod.sh .venv && rm -rf .cache

COPY pyproject.toml setup.py README.md ./
COPY tf_bert tf_bert/
COPY configs configs/
RUN python -m pip install --no-deps --no-build-isolation -e . && tf-bert --version

WORKDIR /workspace
CMD ["tf-bert", "--help"]
