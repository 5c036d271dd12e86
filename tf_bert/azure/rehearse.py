"""`tf-bert azure rehearse`: a job on this machine, as Azure Machine Learning would run it; reads top to bottom.

What is uploaded is copied, inputs and outputs are folders in the place of datastores, mpirun starts the very command on
every rank, with Azure's variables. A job that is preempted starts again in a new working directory, and finds what it
has written to its outputs, and nothing else.
"""

import dataclasses
import importlib.util
import os
import random
import re
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tf_bert.azure.job import JobFile, fill_placeholders
from tf_bert.azure.local_nodes import MARK, LocalJob, check_mpirun, scratch_directory
from tf_bert.azure.mounts import MOUNTS_DIR, Mounts
from tf_bert.azure.preemption import Preemptions
from tf_bert.azure.run_context import RUN_ID, TRACKING_RUN_ID, TRACKING_URI
from tf_bert.azure.snapshot import list_snapshot, refuse_secrets
from tf_bert.config import ParameterConfig
from tf_bert.errors import InputError, UsageError
from tf_bert.files import reporting_disk_errors

LOG_FILE = "log.txt"
"""In an attempt's folder: all that the job has printed."""

_OWN_RANKS = re.compile(r"(?<![\w./-])(mpirun|mpiexec|horovodrun|srun|--ranks)(?![\w-])")
_MOST_PROCESSES_PER_CORE = 4

Notify = Callable[[str], object]


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """How a job is rehearsed."""

    directory: Path
    """Of all rehearsals: `datastores/NAME/`, and `jobs/JOB/attempt-N/` with each attempt's working directories."""
    nodes: int | None = None
    """In the stead of the job's."""
    processes_per_node: int | None = None
    """In the stead of the job's."""
    preemptions: int = 0
    """How often the job is killed while it does its steps, and started again."""
    seed: int = 0
    """Draws the moments of the kills, and the values of a sweep."""
    inputs: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    """Places of inputs by name, where they are not in `directory`."""


def rehearse(file: JobFile, rehearsal: Rehearsal, notify: Notify = print) -> int:
    """Runs a job, from its snapshot to its outputs.

    Args:
      file: the job.
      rehearsal: how.
      notify: is told what the job prints and what becomes of it.

    Returns:
      The job's exit code.

    Raises:
      UsageError: if the job or the rehearsal cannot be run as they are.
      InputError: if data or mpirun is missing, Azure would not take the snapshot, an input was written to, or the job
        was done before it was preempted as often as asked.
    """
    nodes, processes = _size(file, rehearsal)
    run_id = f"rehearsal_{file.path.stem}" + (f"_{rehearsal.seed}" if file.job.sweep else "")
    mounts = Mounts(file, rehearsal.directory, run_id, rehearsal.inputs)
    snapshot = list_snapshot(file.code_dir)
    refuse_secrets(file.code_dir, snapshot)
    if nodes * processes > 1:
        check_mpirun()
    drawn = _draw(file, rehearsal.seed, notify)
    variables = _azure_variables(file, rehearsal.directory, run_id, nodes)
    notify(f"{file.job.name}: {nodes} x {processes} processes, {len(snapshot)} files of {file.code_dir}")

    preemptions = Preemptions(rehearsal.preemptions, rehearsal.seed)
    while True:
        attempt_dir = _new_attempt(rehearsal.directory / "jobs" / file.path.stem)
        work_dirs = [attempt_dir / f"node-{number}" for number in range(nodes)]
        for work_dir in work_dirs:
            _stage(file.code_dir, snapshot, work_dir)
        paths = mounts.mount(attempt_dir)
        values = {key: shlex.quote(str(value)) for key, value in {**paths, **drawn}.items()}
        command = fill_placeholders(file.job.command, values)
        notify(f"{attempt_dir}: {command}")
        own = {MARK: str(attempt_dir / MOUNTS_DIR), **_mount_variables(paths)}
        with mounts.read_only(), scratch_directory() as scratch_dir:
            job = LocalJob(command, work_dirs, processes, {**variables, **own}, scratch_dir)
            code = _watch(job, attempt_dir / LOG_FILE, preemptions, notify)
        if code is None:
            notify(f"preempted: every process was killed; {preemptions.left} more to come")
            continue
        mounts.upload(paths)
        for line in _told(mounts, paths, work_dirs[0]):
            notify(line)
        notify(f"{file.job.name}: ended with exit code {code}; what it printed is in {attempt_dir / LOG_FILE}")
        if code == 0 and preemptions.left:
            raise InputError(
                f"the job was done before it could be preempted, with {preemptions.left} of {rehearsal.preemptions} "
                "kills to come; let it take more steps, or print them more often (cadence.log_every)"
            )
        return code


def _size(file: JobFile, rehearsal: Rehearsal) -> tuple[int, int]:
    """Nodes, and processes on each."""
    nodes = rehearsal.nodes or file.job.nodes
    processes = rehearsal.processes_per_node or file.job.processes_per_node
    if nodes * processes > 1 and (match := _OWN_RANKS.search(file.job.command)):
        raise UsageError(
            f"{file.path}: command: {match[1]} would start ranks in each of {nodes * processes} processes; leave it "
            "out, for Azure starts the command once per process"
        )
    cores = os.cpu_count() or 1
    asked = rehearsal.nodes is not None or rehearsal.processes_per_node is not None
    if not asked and nodes * processes > _MOST_PROCESSES_PER_CORE * cores:
        raise UsageError(
            f"{file.path}: has {nodes} x {processes} = {nodes * processes} processes, and this machine {cores} cores; "
            "rehearse it with fewer, such as --nodes 2 --processes 2"
        )
    return nodes, processes


def _draw(file: JobFile, seed: int, notify: Notify) -> dict[str, str]:
    """One value for each parameter of a sweep, by placeholder."""
    if file.job.sweep is None:
        return {}
    generator = random.Random(seed)

    def value(parameter: ParameterConfig) -> object:
        if parameter.choice is not None:
            return generator.choice(parameter.choice)
        if parameter.uniform is not None:
            return generator.uniform(*parameter.uniform)
        low, high = parameter.log_uniform or (1.0, 1.0)
        return float(low * (high / low) ** generator.random())

    drawn = {name: str(value(parameter)) for name, parameter in file.job.sweep.parameters.items()}
    notify("one run of the sweep, with " + ", ".join(f"{name} {text}" for name, text in drawn.items()))
    return {f"search_space.{name}": text for name, text in drawn.items()}


def _azure_variables(file: JobFile, directory: Path, run_id: str, nodes: int) -> dict[str, str]:
    """What Azure sets on every rank; nothing that opens a door. Ranks and sizes come from mpirun."""
    variables = {
        RUN_ID: run_id,
        "AZUREML_ARM_SUBSCRIPTION": "00000000-0000-0000-0000-000000000000",
        "AZUREML_ARM_RESOURCEGROUP": "rehearsal",
        "AZUREML_ARM_WORKSPACE_NAME": "rehearsal",
        "AZUREML_ARM_PROJECT_NAME": file.job.experiment,
        "AZUREML_NODE_COUNT": str(nodes),
        "PYTHONUNBUFFERED": "1",
        **file.job.environment_variables,
    }
    if nodes > 1:
        variables["AZ_BATCH_MASTER_NODE"] = "127.0.0.1:6000"
    if importlib.util.find_spec("mlflow"):
        variables |= _tracking(file, directory / "mlflow")
    return variables


def _tracking(file: JobFile, directory: Path) -> dict[str, str]:
    """Files in the place of Azure's MLflow server, with one run for all attempts."""
    # MLflow recommends databases, which its small edition does not have; and it would tell its makers of each use.
    settings = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.environ.update(settings)
    from mlflow import MlflowClient

    client = MlflowClient(directory.resolve().as_uri())
    experiment = client.get_experiment_by_name(file.job.experiment)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(file.job.experiment)
    run = client.create_run(experiment_id, run_name=file.job.name, tags=file.job.tags)
    return {TRACKING_URI: directory.resolve().as_uri(), TRACKING_RUN_ID: run.info.run_id, **settings}


def _mount_variables(paths: Mapping[str, Path]) -> dict[str, str]:
    words = {"inputs": "INPUT", "outputs": "OUTPUT"}
    keys = {key: key.partition(".") for key in paths}
    return {f"AZURE_ML_{words[group]}_{name}": str(paths[key]) for key, (group, _, name) in keys.items()}


def _new_attempt(job_dir: Path) -> Path:
    """A new folder; its number goes on from those of earlier attempts, also of other rehearsals of the job."""
    number = 1
    while (attempt_dir := job_dir.resolve() / f"attempt-{number}").exists():
        number += 1
    with reporting_disk_errors(attempt_dir):
        attempt_dir.mkdir(parents=True)
    return attempt_dir


def _stage(code_dir: Path, snapshot: list[Path], work_dir: Path) -> None:
    with reporting_disk_errors(work_dir):
        for path in snapshot:
            (work_dir / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(code_dir / path, work_dir / path)
        for name in ("outputs", "logs"):
            (work_dir / name).mkdir(parents=True, exist_ok=True)


def _watch(job: LocalJob, log_path: Path, preemptions: Preemptions, notify: Notify) -> int | None:
    """Passes on what a job prints; returns its exit code, or None if it was preempted."""
    preempted = threading.Event()

    def preempt() -> None:
        if job.kill():
            preempted.set()

    timer: threading.Timer | None = None
    preemptions.begin_attempt()
    try:
        with log_path.open("w", encoding="utf-8") as log:
            for line in job.lines():
                log.write(line + "\n")
                notify(line)
                pause = preemptions.pause_until_kill(line, time.monotonic())
                if pause is not None and timer is None:
                    timer = threading.Timer(pause, preempt)
                    timer.start()
        code = job.wait()
    finally:
        if timer:
            timer.cancel()
            timer.join()
        job.kill()  # nothing of it stays, whatever ends the rehearsal
    if not preempted.is_set():
        return code
    preemptions.killed()
    return None


def _told(mounts: Mounts, paths: Mapping[str, Path], work_dir: Path) -> Iterator[str]:
    """What the job leaves behind, as lines."""
    kept = [(f"outputs.{name}", place) for name, place in mounts.places(paths)]
    uploaded = [(f"./{name} (uploaded by itself)", work_dir / name) for name in ("outputs", "logs")]
    for name, place in [*kept, *uploaded]:
        files = [path for path in place.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        yield f"{name}: {len(files)} files, {size / 1e6:,.1f} MB, in {place}"
