"""The notebooks: run from start to end on this machine, and sent to stubs of Azure's client with LOCAL = False."""

import ast
import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["Pretrain", "Tensorflow-BERT-AzureML", "Evaluate-GLUE", "NER", "Domain-BERT"]
PICTURES = ROOT / "docs" / "img"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def read(name: str) -> Any:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_of(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stripped_and_defines_nothing(name):
    notebook = read(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            words = cell.source.split()
            assert not {"def", "class", "lambda"} & set(words), cell.source
    assert code_of(notebook)[0] == "LOCAL = True"
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert (PICTURES / f"notebook-{name.lower()}.png").read_bytes().startswith(b"\x89PNG")


def test_every_notebook_is_tested_and_told_of():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == sorted(NAMES)
    told = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"({name}.ipynb)" in told and f"notebook-{name.lower()}.png)" in told


def test_what_the_notebooks_hold_has_no_secrets():
    from tf_bert.azure.secret_scan import find_secret

    for path in (ROOT / "notebooks").rglob("*"):
        if path.is_file() and "runs" not in path.relative_to(ROOT / "notebooks").parts:
            assert find_secret(path) is None, path


class Executed:
    """A notebook that has been run in a directory of its own."""

    def __init__(self, name: str, directory: Path) -> None:
        from nbclient import NotebookClient

        self.directory = directory
        self.notebook = read(name)
        NotebookClient(self.notebook, timeout=600, resources={"metadata": {"path": str(directory)}}).execute()
        nbformat.write(self.notebook, directory / f"{name}.ipynb")  # for whoever wants to look at it

    @property
    def value(self) -> Any:
        """What the last cell ends with."""
        return ast.literal_eval(self.notebook.cells[-1].outputs[-1].data["text/plain"])

    @property
    def pictures(self) -> list[bytes]:
        outputs = [output for cell in self.notebook.cells for output in cell.get("outputs", [])]
        found = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
        return [base64.b64decode(picture) for picture in found]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Runs a notebook when it is first asked for."""
    kept: dict[str, Executed] = {}

    def run(name: str) -> Executed:
        if name not in kept:
            kept[name] = Executed(name, tmp_path_factory.mktemp(name))
            (picture, *_) = kept[name].pictures
            assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
        return kept[name]

    return run


def test_pretrain(executed):
    value = executed("Pretrain").value
    assert value["steps"] == 120 and value["tokens per second"] > 0
    assert 7.4 < value["first validation loss"] < 7.8  # an even guess over 2,000 tokens: 7.60 nats
    assert value["last validation loss"] < value["first validation loss"] - 1.0
    printed = "".join(text_of(executed("Pretrain").notebook))
    assert "preempted: every process was killed; 0 more to come" in printed and "goes on from step" in printed


def test_tensorflow_bert(executed):
    value = executed("Tensorflow-BERT-AzureML").value
    assert value["last loss"] < value["first loss"] - 0.1
    assert value["accuracy"] >= 0.75 and len(value["scores of the sweep"]) == 3
    assert max(value["scores of the sweep"]) >= 0.75
    expected = ["1", "0"] * 4
    assert sum(a == b for a, b in zip(value["answers"], expected, strict=True)) >= 6


def test_evaluate_glue(executed):
    value = executed("Evaluate-GLUE").value
    assert list(value) == ["RTE", "MRPC"] or list(value) == ["MRPC", "RTE"]
    assert value["RTE"].keys() == {"accuracy"} and value["MRPC"].keys() == {"accuracy", "f1"}
    assert all(len(spread) == 2 for metrics in value.values() for spread in metrics.values())
    assert max(value["MRPC"]["accuracy"]) >= 0.75
    printed = "".join(text_of(executed("Evaluate-GLUE").notebook))
    assert "RTE.tsv\nindex\tprediction\n0\t" in printed and "MRPC.tsv\nindex\tprediction\n0\t" in printed


def test_ner(executed):
    value = executed("NER").value
    assert value["last loss"] < 0.5 * value["first loss"] and value["f1"] > 0.5
    assert value["found"][0]["Anna Berg"] == "PER" and value["found"][1]["Oslo"] == "LOC"


def test_domain(executed):
    value = executed("Domain-BERT").value
    for way in ("continue", "start-over"):
        losses = value[way]["losses"]
        assert min(losses) < losses[0] - 0.7 and len(value[way]["accuracies"]) == 1
    assert value["continue"]["unigrams"] > value["start-over"]["unigrams"]  # of 30,522 tokens and of 2,000
    assert value["continue"]["accuracies"][0] > value["start-over"]["accuracies"][0]
    assert len(executed("Domain-BERT").pictures) == 2  # the vocabulary report's, and the comparison


def text_of(notebook: Any) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.output_type == "stream"]


# --- LOCAL = False ---------------------------------------------------------------------------------------------------


@pytest.fixture
def azure(tmp_path, monkeypatch):
    """A workspace of which only the client is a stub; `kept` are folders that its runs have written, by output."""
    for name in ("stdout", "stderr"):  # what the SDK puts around them does not outlive the test
        monkeypatch.setattr(sys, name, getattr(sys, name))
    import azure.ai.ml

    monkeypatch.syspath_prepend(str(ROOT / "tests" / "azure"))
    import azure_stubs

    stub = azure_stubs.StubMlClient(f"file://{tmp_path}/mlruns")
    stub.status = "Completed"
    stub.kept, stub.made = {}, []
    stub.find_kept = stub.kept.__getitem__

    def download(name, download_path, output_name):
        if output_name is None:
            logs = Path(download_path) / "artifacts" / "user_logs"
            logs.mkdir(parents=True)
            for rank in range(4):
                (logs / f"std_log_process_{rank}.txt").write_text(f"rank {rank} was here")
            return
        shutil.copytree(stub.find_kept(output_name), Path(download_path) / "named-outputs" / output_name)

    stub.jobs.download = download
    stub.datastores.create_or_update = stub.made.append
    stub.compute.begin_create_or_update = lambda made: stub.made.append(made) or SimpleNamespace(result=lambda: made)
    monkeypatch.setattr(azure.ai.ml, "MLClient", lambda *given, **how: stub)
    for module in ("workspace", "submission"):
        monkeypatch.setattr(f"tf_bert.azure.{module}.credential", lambda: "the credential")
    for name in ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME"):
        monkeypatch.setenv(name, "theirs")
    for name in ("PATH", "TF_CPP_MIN_LOG_LEVEL"):  # the notebooks set them
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    return stub


def send(name: str) -> dict[str, Any]:
    """Runs the cells of a notebook in this process, with LOCAL = False; returns its variables."""
    from IPython.core.inputtransformer2 import TransformerManager

    variables: dict[str, Any] = {}

    def system(command: str) -> None:
        subprocess.run(command.format_map(variables), shell=True, check=True)

    variables["get_ipython"] = lambda: SimpleNamespace(system=system)  # a line with ! asks for it
    first, *others = code_of(read(name))
    for source in [first.replace("True", "False"), *others]:
        exec(TransformerManager().transform_cell(source), variables)
    return variables


def test_pretrain_is_sent(azure, executed):
    from azure.ai.ml.entities import AmlCompute, AzureBlobDatastore

    local = executed("Pretrain").directory / "runs" / "pretrain" / "rehearsal" / "datastores" / "bert"
    azure.kept["run"] = local / "runs" / "azureml-bert-base"
    send("Pretrain")
    store, cpus, gpus = azure.made
    assert isinstance(store, AzureBlobDatastore) and isinstance(gpus, AmlCompute)
    assert (store.name, store.container_name, store.credentials.type) == ("bert", "bert", "None")
    assert (cpus.name, cpus.size, cpus.min_instances, cpus.max_instances) == ("cpu-cluster", "Standard_D16s_v5", 0, 4)
    assert (gpus.name, gpus.min_instances, gpus.max_instances) == ("gpu-cluster", 0, 16)  # 4 GPUs each
    assert gpus.size == "Standard_NC96ads_A100_v4" and gpus.identity.type == "system_assigned"
    fetch, prepare, pretrain = azure.sent
    assert [job.experiment_name for job in azure.sent] == ["bert-data", "bert-data", "bert-pretraining"]
    assert fetch.compute == prepare.compute == "cpu-cluster" and pretrain.compute == "gpu-cluster"
    assert (pretrain.distribution.type, pretrain.distribution.process_count_per_instance) == ("mpi", 4)
    assert pretrain.resources.instance_count == 16
    assert pretrain.inputs["data"].path == prepare.outputs["data"].path  # training and validation
    assert pretrain.outputs["run"].path == "azureml://datastores/bert/paths/runs/azureml-bert-base"  # and checkpoints
    assert "--config configs/azureml-bert-base.yaml" in pretrain.component.command
    assert [call for call in azure.called if call[0] == "stream"] == [("stream", f"run_{i}") for i in range(3)]


def test_tensorflow_bert_is_sent(azure, executed, tmp_path, monkeypatch):
    from azure.ai.ml.sweep import BanditPolicy, LogUniform
    from mlflow.tracking import MlflowClient

    local = executed("Tensorflow-BERT-AzureML").directory / "runs" / "tensorflow-bert" / "rehearsal"
    azure.kept["run"] = local / "datastores" / "bert" / "runs" / "mrpc"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # of the service that stands in for Azure's
    metrics = MlflowClient(tracking_uri=f"file://{tmp_path}/mlruns")
    experiment = metrics.create_experiment("bert-finetuning")
    for rate, accuracy in (("1e-05", 0.81), ("3e-05", 0.86)):
        run = metrics.create_run(experiment).info.run_id
        metrics.log_param(run, "learning_rate", rate)
        metrics.log_metric(run, "dev/accuracy", accuracy)
        child = SimpleNamespace(name=run, status="Completed", studio_url="")
        azure.children.setdefault("run_2", []).append(child)
    value = send("Tensorflow-BERT-AzureML")["summary"]
    fetch, finetune, sweep = azure.sent
    assert "tf-bert fetch glue" in fetch.component.command and fetch.compute == "cpu-cluster"
    assert fetch.inputs["checkpoint"].path.endswith("/uncased_L-12_H-768_A-12.zip")
    command = finetune.component.command
    settings = "--max_seq_length 128 --global_batch_size 32 --learning_rate 2e-5 --num_train_epochs 3"
    assert "--task MRPC" in command and settings in command
    assert finetune.distribution is None and finetune.resources.instance_count == 1
    policy, space = sweep.early_termination, sweep.search_space["learning_rate"]
    assert isinstance(policy, BanditPolicy) and isinstance(space, LogUniform)
    assert (policy.delay_evaluation, policy.evaluation_interval, policy.slack_factor) == (25, 1, 0.1)
    assert (sweep.limits.max_total_trials, sweep.limits.max_concurrent_trials) == (8, 2)
    assert value["scores of the sweep"] == [0.86, 0.81]
    [(_, model)] = [call for call in azure.called if call[0] == "register"]
    assert (model.name, model.path) == ("bert-mrpc", f"azureml://jobs/{run}/outputs/run/paths/best")


def test_evaluate_glue_is_sent(azure, executed):
    local = executed("Evaluate-GLUE").directory / "runs" / "evaluate-glue" / "rehearsal" / "datastores" / "bert"
    azure.kept["results"] = local / "runs" / "rte-large"
    send("Evaluate-GLUE")
    [job] = azure.sent
    command = job.component.command
    assert "--tasks RTE" in command and "--max_seq_length 128 --global_batch_size 64 --microbatch_size 8" in command
    assert "--learning_rate 2e-5 --num_train_epochs 3" in command  # 64 = 8 x 4 processes x 2 microsteps
    assert (job.resources.instance_count, job.distribution.process_count_per_instance) == (1, 4)
    assert job.inputs["run"].path.endswith("/runs/azureml-bert-large")


def test_ner_is_sent(azure, executed):
    local = executed("NER").directory / "runs" / "ner" / "rehearsal" / "datastores" / "bert"
    azure.kept["run"] = local / "runs" / "ner"
    asked = []

    def invoke(endpoint, request_file, deployment_name):
        asked.append((endpoint, deployment_name, Path(request_file).read_text()))
        outputs = {"entity_texts": [["Anna Berg"], [""]], "entity_types": [["PER"], [""]], "entity_count": [1, 0]}
        return f'{{"outputs": {outputs!r}}}'.replace("'", '"')

    azure.online_endpoints.invoke = invoke
    value = send("NER")["summary"]
    [job] = azure.sent
    settings = "--max_seq_length 75 --global_batch_size 32 --learning_rate 3e-5 --num_train_epochs 5"
    assert "--task NER" in job.component.command and settings in job.component.command
    called = [call for call in azure.called if call[0] not in ("stream", "connect")]
    assert [call[0] for call in called] == [
        "register",
        "ManagedOnlineEndpoint",
        "ManagedOnlineDeployment",
        "ManagedOnlineEndpoint",
    ]
    assert called[0][1].name == "bert-ner" and called[0][1].path == "azureml://jobs/run_0/outputs/run/paths/best"
    assert called[2][1].environment.image == "docker.io/tensorflow/serving:2.20.0" and called[3][2] == {"blue": 100}
    assert asked[0][:2] == ("ner", "blue") and "Anna Berg works for" in asked[0][2]
    assert value["found"] == [{"Anna Berg": "PER"}, {}]


def test_domain_is_sent(azure, executed):
    local = executed("Domain-BERT").directory / "runs" / "domain" / "rehearsal" / "datastores" / "bert"
    kept = {"data": local / "data" / "domain-128", "probe": local / "runs" / "domain-probe"}
    runs = iter([local / "runs" / "domain-continue", local / "runs" / "domain-start-over"])
    azure.find_kept = lambda output: kept[output] if output in kept else next(runs)
    value = send("Domain-BERT")["summary"]
    assert value == executed("Domain-BERT").value
    prepare, go_on, start_over, probe = azure.sent
    for part in ("vocab train", "vocab report", "/continue && tf-bert prepare", "${{outputs.data}}/start-over"):
        assert part in prepare.component.command
    assert "--init ${{inputs.model}}/bert-base-uncased" in go_on.component.command
    assert "--init" not in start_over.component.command
    for job in (go_on, start_over):
        assert job.inputs["data"].path == prepare.outputs["data"].path
        assert (job.resources.instance_count, job.distribution.process_count_per_instance) == (1, 4)
    assert probe.inputs["continued"].path == go_on.outputs["run"].path
    assert probe.inputs["started"].path == start_over.outputs["run"].path
