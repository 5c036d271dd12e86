"""What is sent for each file of configs/azure, under both SDKs, against files that people have read."""

import json
import shutil
from pathlib import Path

import golden_files
import pytest
import yaml

from tf_bert.azure.sdk_v2 import load_work
from tf_bert.azure.secret_scan import find_secret

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # SDK v1's way of reading YAML


def texts(directory):
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "sdk"), golden_files.CASES)
def test_what_is_sent_is_as_it_was_read(name, sdk, tmp_path):
    golden = golden_files.GOLDEN / name / sdk
    # Beside the golden files, since paths are relative to where they are written.
    fresh = golden_files.GOLDEN / name / f"{sdk}-{tmp_path.name}"
    try:
        written = golden_files.write(name, sdk, fresh)
        found, expected = texts(fresh), texts(golden)
        assert found == expected, "read the difference, and run `python tests/azure/golden_files.py`"
        assert {str(path.relative_to(fresh)) for path in written} == set(expected)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@pytest.mark.parametrize("path", sorted(golden_files.GOLDEN.rglob("*.*")), ids=lambda path: str(path.parent.name))
def test_files_have_a_schema_relative_paths_and_no_secrets(path):
    text = path.read_text()
    assert find_secret(path) is None and "password" not in text.lower()
    assert str(golden_files.ROOT) not in text and "code: /" not in text
    if path.suffix == ".yml":
        schema = yaml.safe_load(text)["$schema"]
        assert schema.startswith("https://azuremlschemas.azureedge.net/latest/") and schema.endswith(".schema.json")
    else:
        assert json.loads(text)["snapshot"] == "../../../../.."


@pytest.mark.parametrize("name", [name for name, sdk in golden_files.CASES if sdk == "v2"])
def test_the_code_that_is_sent_is_this_checkout(name):
    job = load_work(golden_files.GOLDEN / name / "v2" / "job.yml")
    if job.type == "pipeline":
        assert list(job.jobs) == ["fetch", "prepare", "pretrain", "glue"]
        places = [(node.component.base_path, node.component.code) for node in job.jobs.values()]
    else:
        places = [(job.base_path, job.trial.code if job.type == "sweep" else job.code)]
    for base, code in places:
        assert (Path(base) / code).resolve() == golden_files.ROOT
