"""What `configs/azure` sends under each SDK, kept in `golden/`; `python tests/azure/golden_files.py` writes it anew."""

import shutil
from pathlib import Path

from tf_bert.azure.pipeline import read_job_or_pipeline
from tf_bert.azure.submission import dry_run

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "azure"
GOLDEN = Path(__file__).parent / "golden"
CASES = [
    (path.stem, sdk)
    for path in sorted(CONFIGS.glob("*.yaml"))
    for sdk in ("v1", "v2")
    if (path.stem, sdk) != ("pipeline", "v1")  # SDK v1's pipelines are another product
]
# A commit would change the files with every commit.
TAGS = {"tf_bert_job": "the job's name", "git_commit": "0123456789abcdef0123456789abcdef01234567"}
# SDK v1 builds no images; a registered environment takes the Dockerfile's place.
OF_V1 = {"environment.dockerfile": None, "environment.version": "1"}


def write(name: str, sdk: str, directory: Path) -> list[Path]:
    """Writes what a configuration sends, as `--dry-run` does; returns the files."""
    work = read_job_or_pipeline(CONFIGS / f"{name}.yaml", OF_V1 if sdk == "v1" else {})
    return dry_run(work, sdk, directory, TAGS)


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for name, sdk in CASES:
        print(*write(name, sdk, GOLDEN / name / sdk), sep="\n")
