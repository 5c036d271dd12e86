# tf_bert for nodes with NVIDIA GPUs: CUDA 12.5, Open MPI 5 of the base image, Horovod built with NCCL.
#
#   docker build -f docker/gpu.Dockerfile -t tf_bert:gpu .
#
# The base is Azure ML's, so that the same image runs there as an MPI job; any host with NVIDIA's container toolkit does.
FROM mcr.microsoft.com/azureml/openmpi5.0-cuda12.5-ubuntu22.04

RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/tf_bert
ENV PATH=/opt/tf_bert/.venv/bin:/usr/local/cuda/bin:$PATH PIP_NO_CACHE_DIR=1

# Pinned dependencies first, the code last: a change of the code builds neither them nor Horovod again.
COPY requirements.lock ./
RUN /usr/bin/python3 -m venv .venv \
    && python -m pip install --no-deps -r requirements.lock \
    && python -m pip install --constraint requirements.lock "tensorflow[and-cuda]"

COPY scripts/build_horovod.sh scripts/
# With the base's Open MPI, since mpicxx is found, and with NCCL. The driver's libcuda is not wanted before a GPU is used.
RUN HOROVOD_GPU_OPERATIONS=NCCL scripts/build_horovod.sh .venv && rm -rf .cache

COPY pyproject.toml setup.py README.md ./
COPY tf_bert tf_bert/
COPY configs configs/
RUN python -m pip install --no-deps --no-build-isolation -e . && tf-bert --version

# Containers run as root unless told otherwise, which Open MPI refuses by default.
ENV OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
WORKDIR /workspace
CMD ["tf-bert", "--help"]
