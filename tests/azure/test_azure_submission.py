"""What is told before anything is sent, whichever SDK it is."""

import golden_files
import pytest
from azure_stubs import azure

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # SDK v1's way of reading YAML

CONFIGS = golden_files.CONFIGS
VERSION = ["--environment.dockerfile", "null", "--environment.version", "1"]  # SDK v1 builds no images


@pytest.mark.parametrize("sdk", ["v1", "v2"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--compute", "gpu-clutser"],
            "compute: the workspace has no cluster gpu-clutser; it has cpu-cluster, gpu-cluster,",
        ),
        (
            ["--compute", "gpu-cluster"],
            "has machines of STANDARD_NC96ADS_A100_V4, not of vm_size Standard_NC24ads_A100_v4",
        ),
        (["--nodes", "5"], "the cluster gpu-cluster-small grows to 4 machines, but nodes is 5; lower it"),
        (
            ["--priority", "spot"],
            "the cluster gpu-cluster-small is dedicated, but priority is spot; set it to dedicated",
        ),
        (
            ["--compute", "gpu-spot", "--vm_size", "null"],
            "the cluster gpu-spot is spot, but priority is dedicated; set it to spot",
        ),
        (
            ["--vm_size", "null", "--processes_per_node", "2"],
            "processes_per_node is 2, but a Standard_NC24ads_A100_v4 has 1 GPU, and every process takes one",
        ),
        (
            ["--inputs.glue.path", "azureml://datastores/berd/paths/glue"],
            "inputs.glue: the workspace has no datastore berd; it has workspaceblobstore, bert",
        ),
        (
            ["--outputs.run.path", "azureml://datastores/berd/paths/run"],
            "outputs.run: the workspace has no datastore berd",
        ),
    ],
)
def test_what_the_workspace_does_not_have_is_told_before_anything_is_sent(v1, v2, sdk, words, message, capsys):
    path = CONFIGS / "finetune-mrpc.yaml"
    assert azure("submit", path, "--sdk", sdk, *(VERSION if sdk == "v1" else ()), *words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"tf-bert azure submit: {path}: ") and message in printed and printed.count("\n") == 1
    assert v1.sent == [] and v2.sent == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("submit", CONFIGS / "sweep-mrpc.yaml"), "is a sweep; send it with `tf-bert azure sweep`"),
        (("sweep", CONFIGS / "glue.yaml"), "has no sweep; send it with `tf-bert azure submit`"),
        (
            ("submit", CONFIGS / "glue.yaml", "--output", "x"),
            "--output is about --dry-run; add it, or leave --output out",
        ),
        (("status", CONFIGS / "glue.yaml", "--nodes", "2"), "found '--nodes', which is no option of this command"),
        (("download", CONFIGS / "glue.yaml", "--output", "run"), "has no output run; it has results"),
        (("register", CONFIGS / "pipeline.yaml"), "is a pipeline; name one of its jobs"),
    ],
)
def test_wrong_words(v2, words, message, capsys):
    assert azure(*words) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1 and v2.sent == []


def test_register_needs_a_model(v2, capsys):
    v2.status = "Completed"
    assert azure("submit", CONFIGS / "glue.yaml") == 0 and azure("register", CONFIGS / "glue.yaml") == 2
    assert "glue.yaml: register is missing; name the model, and the output it lies in" in capsys.readouterr().err
