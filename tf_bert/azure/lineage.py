"""Where a run on Azure came from, as tags that it keeps: the version, the commit, the job's file."""

import subprocess
from pathlib import Path

from tf_bert import __version__
from tf_bert.files import sha256_of

JOB_TAG = "tf_bert_job"  # by which the runs of a job are found again


def lineage_of(name: str, path: Path) -> dict[str, str]:
    """Tags for what `path` describes.

    Args:
      name: of the job or pipeline.
      path: its YAML file. Its commit is that of the checkout it lies in, if it lies in one; `-dirty` says that the
        checkout has other changes besides.
    """
    tags = {
        JOB_TAG: name,
        "tf_bert_version": __version__,
        "job_file": path.name,
        "job_file_sha256": sha256_of(path),
    }
    if commit := _git(path.parent, "rev-parse", "HEAD"):
        dirty = "-dirty" if _git(path.parent, "status", "--porcelain") else ""
        tags["git_commit"] = commit + dirty
    return tags


def _git(directory: Path, *words: str) -> str | None:
    """What git says, or None where there is no git, or no checkout."""
    try:
        done = subprocess.run(["git", *words], cwd=directory, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
