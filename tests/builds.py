"""Builds in processes of their own, and what they leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tf_bert.config import PrepareConfig, to_dict

BUILD_SCRIPT = """
import json, resource, sys
from tf_bert.config import PrepareConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.pretraining_data.build import build
if limit := json.loads(sys.argv[2]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    build(PrepareConfig(**json.loads(sys.argv[1])))
except InputError as error:
    sys.exit(str(error))
"""


def start_build(config: PrepareConfig, file_size_limit: int | None = None) -> subprocess.Popen:
    """A build in a process of its own, optionally one whose files the system lets grow no longer than a limit."""
    arguments = [json.dumps(to_dict(config)), json.dumps(file_size_limit)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-c", BUILD_SCRIPT, *arguments], stderr=subprocess.PIPE, text=True, env=environment
    )


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
