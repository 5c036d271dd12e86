"""Jobs that are sent with SDK v1's own objects; only its workspace is a stub."""

import json
from pathlib import Path
from types import SimpleNamespace

import golden_files
import pytest
from azure_stubs import azure

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # SDK v1's way of reading YAML

CONFIGS = golden_files.CONFIGS
VERSION = ["--environment.dockerfile", "null", "--environment.version", "1"]  # SDK v1 builds no images


def test_v1_sends_an_mpi_job(v1, capsys):
    assert azure("submit", CONFIGS / "pretrain-base.yaml", "--sdk", "v1", *VERSION) == 0
    assert capsys.readouterr().out == "run_0: Queued\nhttps://ml.azure.com/runs/run_0\n"
    [(experiment, config)] = v1.sent
    from azureml.core import ScriptRunConfig

    assert experiment == "bert-pretraining" and isinstance(config, ScriptRunConfig)
    run = config.run_config
    assert (run.mpi.process_count_per_node, run.mpi.node_count, run.node_count) == (4, 16, 16)
    assert (run.target, run.docker.use_docker, run.docker.shm_size) == ("gpu-cluster", True, "32g")
    assert run.environment.got == ("tf_bert", "1") and config.source_directory == str(golden_files.ROOT)
    assert v1.runs[0].display_name == "Pretrain BERT-base" and v1.runs[0].tags["recipe"] == "azureml-bert-base"


def test_v1_sends_a_sweep(v1):
    assert azure("sweep", CONFIGS / "sweep-mrpc.yaml", "--sdk", "v1", *VERSION) == 0
    [(_, config)] = v1.sent
    from azureml.train.hyperdrive import HyperDriveConfig

    assert isinstance(config, HyperDriveConfig)
    assert config.run_config.script == "scripts/run_tf_bert.py" and config.run_config.run_config.environment.got
    assert "--learning_rate" not in config.run_config.arguments


@pytest.mark.parametrize("name", [name for name, sdk in golden_files.CASES if sdk == "v1"])
def test_v1_itself_can_make_a_request_of_it(name):
    """The SDK's last steps before it talks to the service, which a stub would hide."""
    from azureml._execution._commands import _run_config_modification, _serialize_run_config_to_dict
    from azureml.core.script_run_config import _update_args_and_io, get_run_config_from_script_run

    from tf_bert.azure.job import read_job
    from tf_bert.azure.sdk_v1 import build

    file = read_job(CONFIGS / f"{name}.yaml", golden_files.OF_V1)
    built = build(file)
    workspace = SimpleNamespace(subscription_id="s", resource_group="g", name="w", location="l")
    run = get_run_config_from_script_run(built if file.job.sweep is None else built.run_config)
    _update_args_and_io(workspace, run)
    _run_config_modification(run)
    request = json.loads(json.dumps(_serialize_run_config_to_dict(run)))
    data = request["dataReferences"].keys() | request["data"].keys() | request["outputData"].keys()
    assert data == file.job.inputs.keys() | file.job.outputs.keys()
    words = request["command"] or " ".join(request["arguments"])
    for place in data:
        assert any(
            f"{kind}{place}" in words
            for kind in ("$AZUREML_DATAREFERENCE_", "DatasetConsumptionConfig:", "OutputConfig:")
        )


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("glue", [], "environment: SDK v1 builds no image from a folder; name an image (--environment.image"),
        ("glue", [*VERSION, "--compute", "serverless"], "compute: SDK v1 knows no serverless machines; name a cluster"),
        (
            "glue",
            [*VERSION, "--inputs.glue.path", "."],
            "inputs.glue: SDK v1 uploads no data; copy . to a datastore first",
        ),
        ("pipeline", [], "pipelines are sent with SDK v2 alone; use --sdk v2, or submit its jobs one by one"),
        (
            "sweep-mrpc",
            [
                *VERSION,
                "--command",
                "tf-bert x ${{inputs.glue}} ${{inputs.model}} ${{outputs.run}} ${{search_space.learning_rate}}",
            ],
            "SDK v1 hands a sweep's values over as flags; write --learning_rate ${{search_space.learning_rate}}",
        ),
        (
            "sweep-mrpc",
            [
                *VERSION,
                "--command",
                "a ${{inputs.glue}} ${{inputs.model}} ${{outputs.run}} --learning_rate ${{search_space.learning_rate}}",
            ],
            "command: a sweep of SDK v1 runs a script of the code; expected `tf-bert ...`",
        ),
    ],
)
def test_v1_says_what_it_cannot_send(v1, name, words, message, capsys):
    command = "sweep" if name == "sweep-mrpc" else "submit"
    assert azure(command, CONFIGS / f"{name}.yaml", "--sdk", "v1", *words) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1 and v1.sent == []


def test_v1_tells_what_azure_refuses_in_a_line(v1, capsys):
    from azureml.exceptions import UserErrorException

    v1.error = UserErrorException("The caller has no right\nto do this.")
    assert azure("submit", CONFIGS / "finetune-mrpc.yaml", "--sdk", "v1", *VERSION) == 1
    assert capsys.readouterr().err == "tf-bert azure submit: Azure: The caller has no right to do this.\n"


def test_v1_looks_after_the_newest_run(v1, capsys):
    path = CONFIGS / "finetune-mrpc.yaml"
    for name in ("finetune-mrpc", "finetune-mrpc", "fetch"):
        assert azure("submit", CONFIGS / f"{name}.yaml", "--sdk", "v1", *VERSION) == 0
    capsys.readouterr()
    for words in (("status",), ("logs",), ("cancel",), ("download",)):
        assert azure(words[0], path, "--sdk", "v1", *words[1:]) == 0
    assert capsys.readouterr().out.startswith(
        "run_1: Queued\nhttps://ml.azure.com/runs/run_1\nrun_1: is being canceled\n"
    )
    assert v1.runs[1].called == [("wait", True, False), ("cancel",), ("download", "runs/azure/run_1")]


class StubDatastore:
    """Holds files by their full path, and copies them as SDK v1's does: with that path."""

    def __init__(self, files):
        self.files = files

    def download(self, target_path, prefix, show_progress):
        found = [name for name in self.files if name.startswith(f"{prefix}/")]
        for name in found:
            (Path(target_path) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(target_path) / name).write_text(self.files[name])
        return len(found)


@pytest.fixture
def registered(monkeypatch):
    """What was registered with SDK v1: models with the files that they are made of."""
    import azureml.core

    files = {f"runs/{place}/{name}": name for place in ("mrpc", "mrpc-sweep/child_1") for name in ("best/a", "model/b")}
    monkeypatch.setattr(azureml.core.Datastore, "get", lambda workspace, name: StubDatastore(files))
    models = []

    def register(workspace, model_path, model_name, tags, description):
        kept = sorted(str(path.relative_to(model_path)) for path in Path(model_path).rglob("*") if path.is_file())
        models.append((model_name, kept, tags["run"]))
        return SimpleNamespace(name=model_name, version=len(models))

    monkeypatch.setattr(azureml.core.Model, "register", register)
    return models


def test_v1_registers_and_downloads_what_a_run_has_written(v1, registered, tmp_path, capsys):
    path = CONFIGS / "finetune-mrpc.yaml"
    assert azure("submit", path, "--sdk", "v1", *VERSION) == 0
    v1.runs[0].status = "Completed"
    assert azure("register", path, "--sdk", "v1") == 0
    assert registered == [("bert-mrpc", ["a"], "run_0")]
    assert azure("download", path, "--sdk", "v1", "--output", "run", "--to", tmp_path / "here") == 0
    assert (tmp_path / "here" / "best" / "a").read_text() == "best/a" and (tmp_path / "here" / "model" / "b").is_file()
    assert "bert-mrpc:1: registered" in capsys.readouterr().out


def test_v1_registers_the_best_of_a_sweep(v1, registered, capsys):
    path = CONFIGS / "sweep-mrpc.yaml"
    assert azure("sweep", path, "--sdk", "v1", *VERSION) == 0
    v1.runs[0].children = [
        {
            "run_id": "child_1",
            "hyperparameters": '{"--learning_rate": 3e-05}',
            "best_primary_metric": 0.86,
            "status": "Completed",
        },
        {"run_id": "child_0", "hyperparameters": None, "best_primary_metric": None, "status": "Canceled"},
    ]
    capsys.readouterr()
    assert azure("sweep", path, "--sdk", "v1", "--results") == 0
    assert capsys.readouterr().out.splitlines() == [
        "0.8600  child_1: Completed: --learning_rate 3e-05",
        "-  child_0: Canceled: ",
    ]
    assert azure("register", path, "--sdk", "v1") == 0
    assert registered == [("bert-mrpc", ["a"], "child_1")]
