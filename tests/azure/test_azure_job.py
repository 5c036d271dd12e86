"""A job's file: what it may say, and one line for each mistake, before anything is sent."""

import pytest
import yaml

from tf_bert import cli
from tf_bert.azure.job import fill_placeholders, placeholders_of, read_job
from tf_bert.azure.vm_sizes import gpus_of

JOB = {
    "name": "A job",
    "experiment": "trials",
    "command": "tf-bert inspect ${{inputs.data}} --png ${{outputs.picture}}/a.png",
    "inputs": {"data": {"path": "azureml://datastores/bert/paths/data"}},
    "outputs": {"picture": {}},
    "compute": "cpu-cluster",
    "environment": {"name": "tf_bert", "image": "registry.azurecr.io/tf_bert:gpu"},
}
SWEEP = {
    "metric": "dev/f1",
    "max_total_trials": 4,
    "parameters": {"rate": {"log_uniform": [1e-5, 1e-4]}},
}


@pytest.fixture
def write(tmp_path):
    """Writes a job's file with some keys changed; None takes a key away."""

    def write(**changes):
        values = {key: value for key, value in {**JOB, **changes}.items() if value is not None}
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_a_job_reads_paths_relative_to_its_file(write, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print()")
    (tmp_path / "notes.txt").write_text("text")
    file = read_job(write(code="code", inputs={"data": {"path": "notes.txt", "type": "uri_file"}}))
    assert file.code_dir == tmp_path / "code"
    assert file.job.inputs["data"].is_local and file.local_path("notes.txt") == tmp_path / "notes.txt"
    assert file.job.inputs["data"].datastore is None


def test_values_of_the_command_line_win(write):
    file = read_job(write(), {"nodes": "2", "environment.image": None, "environment.version": "7"})
    assert (file.job.nodes, file.job.environment.version, file.job.is_distributed) == (2, "7", True)


def test_datastores_are_known():
    from tf_bert.azure.job import JobInput, JobOutput

    assert JobInput("azureml://datastores/bert/paths/a/b").datastore == "bert"
    assert JobInput("azureml:wikipedia:3").datastore is None and not JobInput("azureml:wikipedia@latest").is_local
    assert JobOutput("azureml://datastores/other/paths/${{name}}").datastore == "other"
    assert JobOutput().datastore is None


def test_placeholders_are_found_in_their_order_and_filled():
    command = "a ${{inputs.x}} b ${{ outputs.y }}/c ${{inputs.x}}"
    assert placeholders_of(command) == ("inputs.x", "outputs.y")
    assert fill_placeholders(command, {"inputs.x": "/x", "outputs.y": "$y"}) == "a /x b $y/c /x"
    with pytest.raises(KeyError):
        fill_placeholders(command, {"inputs.x": "/x"})


def test_gpus_of_sizes():
    assert [gpus_of(size) for size in ("Standard_ND40rs_v2", "standard_nc96ads_a100_v4", "Standard_D4s_v5")] == [
        8,
        4,
        None,
    ]


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"nods": 2}, 2, "unknown key 'nods'; did you mean 'nodes'?"),
        ({"compute": None}, 2, "'compute' is required and missing: The cluster"),
        ({"nodes": 0}, 2, "nodes: found 0"),
        ({"experiment": "a b"}, 2, "experiment: found 'a b'"),
        ({"shm_size": "8 GB"}, 2, "shm_size: found '8 GB'"),
        (
            {"command": "tf-bert inspect ${{inputs.data}}"},
            2,
            "outputs.picture is declared, but the command does not use it",
        ),
        (
            {"command": JOB["command"] + " ${{inputs.dat}}"},
            2,
            "${{inputs.dat}} is not declared; add dat to inputs (data)",
        ),
        ({"command": JOB["command"] + " ${{input.data}}"}, 2, "found ${{input.data}}, expected ${{inputs.NAME}}"),
        (
            {"command": JOB["command"] + " ${{search_space.rate}}"},
            2,
            "${{search_space.rate}} is not declared; add rate to sweep.parameters, of which there are none",
        ),
        ({"sweep": SWEEP}, 2, "search_space.rate is declared, but the command does not use it"),
        (
            {
                "sweep": SWEEP,
                "command": JOB["command"] + " ${{search_space.rate}}",
                "outputs": {"picture": {"path": "azureml://datastores/bert/paths/run"}},
            },
            2,
            "outputs.picture: every run of the sweep would write to azureml://datastores/bert/paths/run; put ${{",
        ),
        (
            {"sweep": {**SWEEP, "max_concurrent_trials": 5}},
            2,
            "max_concurrent_trials 5 exceeds max_total_trials 4; lower",
        ),
        ({"sweep": {**SWEEP, "parameters": {}}}, 2, "sweep: parameters is empty"),
        (
            {"sweep": {**SWEEP, "parameters": {"rate": {"log_uniform": [0.0, 1.0]}}}},
            2,
            "found log_uniform 0 to 1, expected lowest < highest, above 0",
        ),
        (
            {"inputs": {"data": {"path": "s3://bucket/data"}}},
            2,
            "inputs.data: path: found 's3://bucket/data', expected azureml:",
        ),
        ({"inputs": {"data": {"path": "azureml://data/x"}}}, 2, "expected azureml://datastores/NAME/paths/..."),
        (
            {"inputs": {"data": {"path": "azureml:wikipedia"}}},
            2,
            "expected azureml:NAME:VERSION or azureml:NAME@latest",
        ),
        ({"inputs": {"data": {"path": "absent"}}}, 1, "absent does not exist; expected a local path"),
        (
            {"outputs": {"picture": {"path": "runs/a"}}},
            2,
            "found 'runs/a', expected azureml://datastores/NAME/paths/...",
        ),
        ({"environment": {"name": "a"}}, 2, "environment: found nothing, expected one of dockerfile, image, version"),
        (
            {"environment": {"name": "a", "image": "b", "version": "1"}},
            2,
            "environment: found image and version, expected one",
        ),
        (
            {"environment": {"name": "a", "dockerfile": "Dockerfile"}},
            1,
            "environment.dockerfile: there is no Dockerfile in",
        ),
        ({"code": "absent"}, 1, "is not a folder; it is relative to this file"),
        (
            {"vm_size": "Standard_NC6s_v3", "processes_per_node": 4},
            2,
            "processes_per_node is 4, but a Standard_NC6s_v3 has 1 GPU, and every process takes one; set it to 1",
        ),
        (
            {"vm_size": "Standard_ND96asr_v4", "processes_per_node": 16},
            2,
            "processes_per_node is 16, but a Standard_ND96asr_v4 has 8 GPUs",
        ),
        ({"compute": "serverless"}, 2, "compute is serverless, so vm_size says which machines; set it"),
        ({"register": {"name": "m", "output": "run"}}, 2, "register.output run is not among the outputs (picture)"),
        ({"register": {"name": "m", "output": "picture", "path": "../x"}}, 2, "expected a path below the output"),
        ({"environment_variables": {"A": 1}}, 2, "environment_variables.A: found 1"),
    ],
)
def test_a_mistake_in_a_job_is_one_line(write, changes, code, message, capsys):
    path = write(**changes)
    command = "sweep" if "sweep" in changes else "submit"
    assert cli.main(["azure", command, str(path), "--dry-run"]) == code
    printed = capsys.readouterr()
    assert f"tf-bert azure {command}: {path}: " in printed.err and message in printed.err
    assert printed.err.count("\n") == 1 and printed.out == ""


@pytest.fixture
def pipeline(tmp_path, write):
    """Writes a pipeline of two steps of the same job, with changes to the second step."""

    def pipeline(**changes):
        write()
        values = {
            "name": "Two",
            "experiment": "trials",
            "steps": {"first": {"job": "job.yaml"}, "second": {"job": "job.yaml", **changes}},
        }
        path = tmp_path / "pipeline.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return pipeline


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"inputs": {"dat": "first.picture"}}, 2, "steps.second.inputs.dat: job.yaml has no such input; it has data"),
        ({"inputs": {"data": "third.picture"}}, 2, "there is no step third above; found first"),
        ({"inputs": {"data": "second.picture"}}, 2, "there is no step second above; found first"),
        ({"inputs": {"data": "first.image"}}, 2, "step first has no output image; it has picture"),
        ({"inputs": {"data": "first"}}, 2, "steps.second.inputs.data: found 'first'"),
        ({"job": "absent.yaml"}, 1, "absent.yaml: cannot be read: No such file or directory"),
    ],
)
def test_a_mistake_in_a_pipeline_is_one_line(pipeline, changes, code, message, capsys):
    path = pipeline(**changes)
    assert cli.main(["azure", "submit", str(path), "--dry-run"]) == code
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1


def test_a_sweep_is_no_step(pipeline, write, capsys):
    path = pipeline()
    write(sweep=SWEEP, command=JOB["command"] + " ${{search_space.rate}}")
    assert cli.main(["azure", "submit", str(path), "--dry-run"]) == 2
    assert "steps.first: job.yaml is a sweep, which is sent on its own" in capsys.readouterr().err
