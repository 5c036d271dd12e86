"""Which workspace is meant, who asks, and with which SDK; one line where one of them is missing."""

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import golden_files
import pytest

from tf_bert import cli
from tf_bert.azure.sdks import require_sdk
from tf_bert.azure.workspace import WorkspaceName, find_workspace
from tf_bert.errors import InputError, UsageError

FILE = {"subscription_id": "sub", "resource_group": "group", "workspace_name": "space"}
JOB = str(golden_files.CONFIGS / "finetune-mrpc.yaml")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    return tmp_path


def write(path, values):
    path.parent.mkdir(exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values))


@pytest.mark.parametrize("place", ["config.json", ".azureml/config.json", "a/config.json", "a/b/.azureml/config.json"])
def test_the_file_is_found_upwards(folder, place):
    write(folder / place, FILE)
    assert find_workspace((folder / "a" / "b",), {}, {}) == WorkspaceName("sub", "group", "space")


def test_the_nearest_file_counts_and_a_models_config_is_none(folder):
    write(folder / "config.json", {**FILE, "workspace_name": "far"})
    write(folder / "a" / ".azureml" / "config.json", FILE)
    write(folder / "a" / "b" / "config.json", {"model_type": "bert", "hidden_size": 768})
    assert find_workspace((folder / "a" / "b",), {}, {}).workspace_name == "space"


def test_the_second_place_is_looked_at_where_the_first_has_none(folder, tmp_path_factory):
    write(folder / "config.json", FILE)
    assert find_workspace((tmp_path_factory.mktemp("elsewhere"), folder), {}, {}).workspace_name == "space"


def test_flags_go_before_variables_and_those_before_the_file(folder):
    write(folder / "config.json", FILE)
    variables = {"AZURE_RESOURCE_GROUP": "of the variable", "AZUREML_ARM_WORKSPACE_NAME": "of the variable"}
    found = find_workspace((folder,), {"workspace_name": "of the flag", "resource_group": None}, variables)
    assert found == WorkspaceName("sub", "of the variable", "of the flag")


def test_inside_of_a_job_no_file_is_needed(folder):
    variables = {
        "AZUREML_ARM_SUBSCRIPTION": "1",
        "AZUREML_ARM_RESOURCEGROUP": "2",
        "AZUREML_ARM_WORKSPACE_NAME": "3",
    }
    assert find_workspace((folder,), {}, variables) == WorkspaceName("1", "2", "3")


def test_no_workspace(folder):
    with pytest.raises(UsageError) as caught:
        find_workspace((folder,), {"subscription_id": "sub"}, {})
    assert str(caught.value) == (
        f"no workspace: found no config.json in {folder} or above it, and no resource_group; download the file from "
        "the workspace's page, or give --resource_group or AZURE_RESOURCE_GROUP"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"subscription_id": "sub"},
            "resource_group is missing; expected subscription_id, resource_group and workspace_name",
        ),
        ({**FILE, "workspace_name": 3}, "workspace_name is missing"),
        ("{not json", "is not valid JSON"),
    ],
)
def test_a_file_that_is_not_a_workspaces(folder, values, message):
    write(folder / ".azureml" / "config.json", values)
    with pytest.raises(InputError, match=message) as caught:
        find_workspace((folder,), {}, {})
    assert str(caught.value).startswith(f"{folder}/.azureml/config.json: ")


def submit(*words, cwd, **variables):
    """The command as a user starts it, in an environment that knows nothing of Azure."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AZURE")}
    python = [sys.executable, *variables.pop("python", ())]
    return subprocess.run(
        [*python, "-m", "tf_bert.cli", "azure", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**plain, "HOME": str(cwd), **variables},
    )


@pytest.mark.parametrize("words", [("submit", JOB), ("status", JOB), ("cancel", JOB), ("logs", JOB)])
def test_without_a_workspace_nothing_is_asked(words, tmp_path):
    done = submit(*words, cwd=tmp_path, AZURE_SUBSCRIPTION_ID="sub")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(
        f"tf-bert azure {words[0]}: no workspace: found no config.json in {tmp_path} or above"
    )
    assert done.stderr.count("\n") == 1


def test_without_credentials_nothing_is_asked(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FILE))
    # The credentials of this machine are none that the test may use: only the environment's, which are absent.
    done = submit("status", JOB, cwd=tmp_path, AZURE_TOKEN_CREDENTIALS="EnvironmentCredential")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "tf-bert azure status: no Azure credentials: run `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and "
        "AZURE_CLIENT_SECRET of a service principal\n"
    )


@pytest.fixture(scope="module")
def packages_without_azure(tmp_path_factory):
    """All that is installed here, but for Azure's SDKs."""
    directory = tmp_path_factory.mktemp("packages")
    for place in site.getsitepackages():
        for path in Path(place).iterdir():
            if not path.name.lower().startswith(("azure", "azureml")) and not (directory / path.name).exists():
                (directory / path.name).symlink_to(path)
    return directory


@pytest.mark.parametrize(
    ("sdk", "package", "extra"), [("v2", "azure-ai-ml", "azure"), ("v1", "azureml-core", "azureml")]
)
def test_an_sdk_that_is_not_installed(packages_without_azure, sdk, package, extra, tmp_path):
    paths = f"{golden_files.ROOT}:{packages_without_azure}"
    done = submit("submit", JOB, "--dry-run", "--sdk", sdk, cwd=tmp_path, python=["-S"], PYTHONPATH=paths)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"tf-bert azure submit: Azure's SDK {sdk} is not installed: {package} is missing; pip install "
        f"'tf_bert[{extra}]', in an environment without the other SDK\n"
    )


@pytest.mark.parametrize(
    ("sdk", "package", "requirement", "conflict"),
    [
        ("v2", "azure_ai_ml", "numpy<1.0", r"azure-ai-ml requires numpy<1\.0, found 2\."),
        ("v1", "azureml_core", "numpy ~=1.19", r"azureml-core requires numpy~=1\.19, found 2\."),
        (
            "v1",
            "azureml_train_core",
            "no-such-package>=2",
            "azureml-train-core requires no-such-package, which is missing",
        ),
    ],
)
def test_sdks_in_versions_that_do_not_go_together(tmp_path, monkeypatch, sdk, package, requirement, conflict):
    require_sdk(sdk)  # here they do
    described = tmp_path / f"{package}-9.0.dist-info"
    described.mkdir()
    name = package.replace("_", "-")
    requirements = f"Requires-Dist: absent-package; extra == 'other'\nRequires-Dist: {requirement}\n"
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n{requirements}")
    monkeypatch.syspath_prepend(str(tmp_path))  # found before the real one
    with pytest.raises(InputError, match=conflict) as caught:
        require_sdk(sdk)
    other = "v1" if sdk == "v2" else "v2"
    message = str(caught.value)
    assert f"; SDK {other} is here too, and each wants other versions; make an environment of its own" in message
    assert message.endswith(f"and pip install 'tf_bert[{'azure' if sdk == 'v2' else 'azureml'}]' there")


def test_a_conflict_is_told_by_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "azure_ai_ml-9.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: azure-ai-ml\nVersion: 9.0\nRequires-Dist: numpy<1.0\n"
    (tmp_path / "azure_ai_ml-9.0.dist-info" / "METADATA").write_text(metadata)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(["azure", "submit", JOB, "--dry-run", "--output", str(tmp_path / "sent")]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("tf-bert azure submit: Azure's SDK v2 cannot be used: azure-ai-ml requires numpy<1.0")
    assert printed.count("\n") == 1 and not (tmp_path / "sent").exists()
