"""Builds by several processes: the same bytes, and one line when a worker is lost."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from builds import children, command, files_of, kill_at_a_document, start, wait_until
from launchers import environment

from tf_bert.pretraining_data.build import build

ADVICE = (
    "use fewer workers, a smaller shard_megabytes or more memory, or take the document out, and run the same command "
    "again: it goes on from what is finished\n"
)


@pytest.fixture(scope="module")
def larger(prepare_config, write_corpus, tmp_path_factory):
    """Makes configurations of a corpus that takes long enough to be interrupted, and the files of its build."""
    directory = tmp_path_factory.mktemp("larger")
    corpus = write_corpus(directory / "corpus.txt", 4000)

    def make(output_dir):
        return prepare_config(output_dir, input=(str(corpus),), shard_megabytes=0.1)

    build(make(directory / "data"))
    return make, files_of(directory / "data")


# --- processes on this machine -------------------------------------------------------------------------------


def workers_of(build_process: int) -> list[int]:
    """The pool's workers, which multiprocessing forks from a server that the build has started."""
    return [worker for server in children(build_process, b"forkserver") for worker in children(server, b"")]


def test_two_processes_write_what_one_writes(data_dir, prepare_config, tmp_path):
    done = subprocess.run(command(prepare_config(tmp_path / "two"), workers=2), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(tmp_path / "two") == files_of(data_dir)


@pytest.mark.parametrize(
    "folder",
    [pytest.param("_work", id="pass 1"), pytest.param("_work/entries", id="pass 2", marks=pytest.mark.slow)],
)
def test_a_lost_worker_is_named_with_its_document_and_the_build_goes_on_later(larger, tmp_path, folder):
    make, expected = larger
    process = start(command(make(tmp_path / "lost"), workers=2))
    note = kill_at_a_document(tmp_path / "lost", lambda: workers_of(process.pid), folder)
    _, complaint = process.communicate()
    assert process.returncode == 1
    assert ("corpus.txt: line " if folder == "_work" else "-of-00") in note.place
    assert complaint == (
        f"tf-bert prepare: worker process {note.pid} was ended by SIGKILL, as the system does when memory runs out, "
        f"at {note.place}; {ADVICE}"
    )
    assert not (tmp_path / "lost" / "manifest.json").exists()
    again = subprocess.run(command(make(tmp_path / "lost"), workers=1), capture_output=True, text=True)
    assert again.returncode == 0 and "goes on after" not in again.stdout
    assert files_of(tmp_path / "lost") == expected


@pytest.mark.slow
def test_workers_end_with_their_parent(larger, tmp_path):
    make, _ = larger
    process = start(command(make(tmp_path / "data"), workers=2))
    wait_until(lambda: len(workers_of(process.pid)) == 2)
    workers = workers_of(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


# --- dask ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def dask_cluster(directory: Path, **variables: str):
    """The scheduler's file, the scheduler, and two workers: processes on the loopback interface."""
    file = directory / "scheduler.json"
    options = {"cwd": "/", "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options["env"] = environment(PYTHONPATH=str(Path(__file__).resolve().parents[2]), **variables)
    dask = [sys.executable, "-m", "dask"]
    loopback = ["--host", "127.0.0.1", "--no-dashboard"]
    scheduler = [*dask, "scheduler", *loopback, "--port", "0", "--scheduler-file", str(file)]
    worker = [*dask, "worker", *loopback, "--scheduler-file", str(file), "--no-nanny", "--nthreads", "1"]
    processes = [subprocess.Popen(words, **options) for words in (scheduler, worker, worker)]
    try:
        wait_until(file.exists)
        yield file, processes[0], processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def _needs_dask():
    pytest.importorskip("distributed", reason="dask.distributed is not installed")


@pytest.mark.usefixtures("_needs_dask")
def test_a_dask_cluster_that_loses_a_worker_writes_what_one_process_writes(larger, tmp_path):
    make, expected = larger
    with dask_cluster(tmp_path) as (file, _, workers):
        # The workers have another working directory.
        process = start(command(make(Path("data")), engine="dask", scheduler_file=file), cwd=tmp_path)
        killed = kill_at_a_document(tmp_path / "data", lambda: [worker.pid for worker in workers], "_work/entries")
        output, complaint = process.communicate()
        assert (process.returncode, complaint) == (0, ""), output
        assert [worker.poll() for worker in workers].count(-signal.SIGKILL) == 1, killed
    assert files_of(tmp_path / "data") == expected
    assert not (tmp_path / "data" / "_work").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("_needs_dask")
def test_a_task_that_ends_dask_workers_is_named_with_its_document(larger, tmp_path):
    make, _ = larger
    with dask_cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as (file, _, workers):
        process = start(command(make(tmp_path / "data"), engine="dask", scheduler_file=file))
        note = kill_at_a_document(tmp_path / "data", lambda: [worker.pid for worker in workers], "_work/entries")
        _, complaint = process.communicate()
    assert process.returncode == 1
    assert complaint.startswith(
        f"tf-bert prepare: 1 workers of the cluster died of one task, the last of them process {note.pid} at tcp://127"
    )
    assert complaint.endswith(f", at {note.place}; {ADVICE}") and complaint.count("\n") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("_needs_dask")
def test_a_lost_dask_scheduler_is_one_line_and_the_build_goes_on_later(larger, tmp_path):
    make, expected = larger
    with dask_cluster(tmp_path) as (file, scheduler, _):
        words = command(make(tmp_path / "data"), engine="dask", scheduler_file=file)
        process = start(words, DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="2s")
        wait_until(lambda: any((tmp_path / "data" / "_work").rglob("*.note")))
        address = json.loads(file.read_text())["address"]
        scheduler.kill()
        _, complaint = process.communicate()
    assert process.returncode == 1
    assert complaint == (
        f"tf-bert prepare: engine dask: the scheduler {address} was lost; start the cluster and the same command "
        "again: it goes on\n"
    )
    subprocess.run(command(make(tmp_path / "data")), check=True)
    assert files_of(tmp_path / "data") == expected


@pytest.mark.usefixtures("_needs_dask")
def test_a_dask_scheduler_that_is_not_there_is_one_line(prepare_config, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("{}")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        cases = {
            ("--scheduler", address): (1, f"engine dask: the scheduler {address} cannot be reached (Timed out"),
            ("--scheduler", "nonsense"): (
                2,
                "engine dask: found the scheduler nonsense, expected an address such as tcp://",
            ),
            ("--scheduler_file", str(tmp_path / "absent")): (
                1,
                f"{tmp_path}/absent: cannot be read: No such file or directory",
            ),
            ("--scheduler_file", str(broken)): (1, f"{broken}: has no address, expected what `dask scheduler"),
            (): (2, "engine dask: no scheduler is named; start one with `dask scheduler` and say --scheduler tcp://"),
        }
        for words, (code, message) in cases.items():
            process = start(
                [*command(prepare_config(tmp_path / "data"), engine="dask"), *words],
                DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="500ms",
            )
            _, complaint = process.communicate()
            assert complaint.startswith(f"tf-bert prepare: {message}") and complaint.count("\n") == 1, complaint
            assert process.returncode == code
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("engine", "package"), [("dask", "dask.distributed"), ("mpi", "mpi4py.futures")])
def test_a_missing_package_is_one_line(prepare_config, tmp_path, engine, package):
    # As where it is not installed: a None in sys.modules makes Python's import fail.
    script = f"import sys; sys.modules['{package}'] = None; from tf_bert.cli import main; sys.exit(main(sys.argv[1:]))"
    words = command(prepare_config(tmp_path / "data"), engine=engine)[3:]
    process = start([sys.executable, "-c", script, *words])
    _, complaint = process.communicate()
    assert process.returncode == 1
    assert complaint.startswith(f"tf-bert prepare: engine {engine}: ") and complaint.count("\n") == 1
    assert complaint.endswith(f"pip install 'tf_bert[{engine}]'\n")


# --- MPI -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mpirun() -> list[str]:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    if not shutil.which("mpirun"):
        pytest.skip("mpirun is not installed")
    return ["mpirun", "-n", "3", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none"]


def test_mpi_ranks_write_what_one_process_writes(data_dir, prepare_config, tmp_path, mpirun):
    process = start([*mpirun, *command(prepare_config(tmp_path / "data"), engine="mpi")])
    output, complaint = process.communicate()
    assert process.returncode == 0, complaint
    assert files_of(tmp_path / "data") == files_of(data_dir)
    assert output.count("train: ") == output.count("validation: ") == 1  # the first rank speaks


@pytest.mark.slow
def test_mpi_ranks_end_together_with_one_line(prepare_config, tmp_path, mpirun, corpus_file):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(corpus_file.read_bytes() + b"\xff")
    process = start([*mpirun, *command(prepare_config(tmp_path / "data"), engine="mpi", input=bad)])
    _, complaint = process.communicate()
    assert process.returncode == 1
    assert complaint.count("tf-bert prepare: ") == 1 and f"{bad}: line " in complaint
    assert "Traceback" not in complaint


def test_mpi_without_mpirun_is_one_line(prepare_config, tmp_path):
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    process = start(command(prepare_config(tmp_path / "data"), engine="mpi"))
    _, complaint = process.communicate()
    assert process.returncode == 1
    assert complaint.startswith("tf-bert prepare: engine mpi: ") and complaint.count("\n") == 1


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_and_the_next_one_names_its_document(data_dir, prepare_config, tmp_path, mpirun):
    process = start([*mpirun, *command(prepare_config(tmp_path / "data"), engine="mpi")])
    note = kill_at_a_document(tmp_path / "data", lambda: children(process.pid, b"tf_bert.cli"))
    process.communicate()
    assert process.returncode != 0
    again = subprocess.run(command(prepare_config(tmp_path / "data")), capture_output=True, text=True)
    assert again.returncode == 0
    assert f"goes on after process {note.pid} on {os.uname().nodename} was killed at {note.place}\n" in again.stdout
    assert files_of(tmp_path / "data") == files_of(data_dir)
