"""docs/azure.md names files, keys and commands that there are."""

import dataclasses
import io
import re

import golden_files
import pytest
import yaml

from tf_bert import cli
from tf_bert.azure.job import AzureJob
from tf_bert.azure.sweep import SweepPart

TEXT = (golden_files.ROOT / "docs" / "azure.md").read_text(encoding="utf-8")


def test_every_file_is_there_and_told():
    recipes = {path.name for path in (golden_files.ROOT / "configs").glob("*.yaml")}
    named = set(re.findall(r"[a-z-]+\.yaml", TEXT)) - recipes
    assert {path.name for path in golden_files.CONFIGS.glob("*.yaml")} <= named | recipes
    assert named <= {path.name for path in golden_files.CONFIGS.glob("*.yaml")}


@pytest.mark.parametrize("cls", [AzureJob, SweepPart])
def test_every_key_is_told(cls):
    table = TEXT[TEXT.index("## A job's file") : TEXT.index("A pipeline has")]
    assert {field.name for field in dataclasses.fields(cls)} - set(re.findall(r"`([a-z_]+)`", table)) == set()


def test_the_datastore_can_be_made():
    from azure.ai.ml import load_datastore

    [block] = re.findall(r"```yaml\n(\$schema.*?)```", TEXT, re.DOTALL)
    store = load_datastore(io.StringIO(block))
    assert (store.name, store.container_name, store.credentials.type) == ("bert", "bert", "None")


def test_every_cluster_is_made():
    for path in golden_files.CONFIGS.glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        if "compute" in values:
            [most] = re.findall(rf"{values['compute']}:{values['vm_size']}:(\d+)", TEXT)
            assert values.get("nodes", 1) <= int(most)


def test_every_command_is_one_of_ours():
    commands = set(re.findall(r"`?tf-bert (azure [a-z]+)", TEXT))
    assert commands <= cli.COMMANDS.keys()
    assert {command for command in cli.COMMANDS if command.startswith("azure ")} <= commands | {"azure cancel"}
    for lines in re.findall(r"tf-bert azure (?:submit|sweep) (configs/azure/[a-z-]+\.yaml[^\n`]*)", TEXT):
        path = lines.split()[0]
        assert (golden_files.ROOT / path).is_file()
