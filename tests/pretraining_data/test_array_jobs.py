"""Builds by processes that were started on their own and meet in the directory alone."""

import dataclasses
import signal
import subprocess

import pytest
from builds import command, files_of, kill_at_a_document, start

from tf_bert.config import PrepareConfig, load
from tf_bert.errors import InputError, UsageError
from tf_bert.pretraining_data.build import build
from tf_bert.pretraining_data.claim import at_work


@pytest.fixture
def parts(corpus_file, tmp_path, monkeypatch):
    """The small corpus in five files, each a task of pass 1, and what a single process makes of it."""
    documents = corpus_file.read_text().strip().split("\n\n")
    sizes = []
    for number in range(5):
        part = tmp_path / f"part-{number}.txt"
        sizes.append(part.write_text("\n\n".join(documents[number * 60 : (number + 1) * 60]) + "\n"))
    monkeypatch.setattr("tf_bert.corpus.splits.LEAST_BYTES", min(sizes))
    return str(tmp_path / "*.txt")


def task(config: PrepareConfig, index: int, num_tasks: int = 3, wait_minutes: float = 0) -> PrepareConfig:
    return dataclasses.replace(config, task_index=index, num_tasks=num_tasks, wait_minutes=wait_minutes)


def test_tasks_one_after_the_other_write_what_one_process_writes(prepare_config, parts, tmp_path, capsys):
    build(prepare_config(tmp_path / "whole", input=(parts,)))
    output_dir = tmp_path / "data"
    config = prepare_config(output_dir, input=(parts,))
    for index, missing in ((0, r"3 of 5 files, the first .*/spill-00001, of the tasks 1, 2"), (1, "1 of 5 .* 2")):
        with pytest.raises(InputError, match=rf"^{output_dir}: task {index} of 3 has read .* 0 minutes .*{missing}; "):
            build(task(config, index))
    spills = {path: path.stat().st_mtime_ns for path in (output_dir / "_work").glob("spill-*.npy")}
    assert len(spills) == 4
    assert build(task(config, 2)) is None  # all have read by now, but the others' shards are not there
    assert capsys.readouterr().out == (
        f"{output_dir}: task 2 of 3 has done its share; 7 of 10 shards are still with other tasks, the last of which "
        "writes manifest.json\n"
    )
    assert build(task(config, 0)) is None
    assert {path: path.stat().st_mtime_ns for path in spills} == spills, "pass 1 was done again"
    assert build(task(config, 1)) is not None
    assert files_of(output_dir) == files_of(tmp_path / "whole") and not (output_dir / "_work").exists()
    assert build(task(config, 1)) is not None  # once more: nothing to do
    assert "already built" in capsys.readouterr().out


def test_a_whole_build_goes_on_where_tasks_have_stopped(prepare_config, parts, tmp_path):
    build(prepare_config(tmp_path / "whole", input=(parts,)))
    config = prepare_config(tmp_path / "data", input=(parts,))
    with pytest.raises(InputError, match="waited 0 minutes"):
        build(task(config, 0))
    build(config)
    assert files_of(tmp_path / "data") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_tasks_at_once_of_which_one_is_killed_and_started_again(data_dir, prepare_config, tmp_path, write_corpus):
    corpus = write_corpus(tmp_path / "corpus.txt", 2000)
    whole, config = (
        prepare_config(tmp_path / name, input=(str(corpus),), shard_megabytes=0.1) for name in ("whole", "data")
    )
    words = [command(config, task_index=index, num_tasks=3, wait_minutes=2) for index in range(3)]
    tasks = [start(each) for each in words]
    kill_at_a_document(tmp_path / "data", lambda: [process.pid for process in tasks], "_work/entries")
    build(whole)  # while the two others come to their ends
    outputs = [process.communicate() for process in tasks]
    codes = [process.returncode for process in tasks]
    assert sorted(codes) == [-signal.SIGKILL, 0, 0], outputs
    killed = codes.index(-signal.SIGKILL)
    assert not (tmp_path / "data" / "manifest.json").exists()
    again = subprocess.run(words[killed], capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "")
    assert "goes on after process" in again.stdout and "train: " in again.stdout
    assert files_of(tmp_path / "data") == files_of(tmp_path / "whole")


def test_who_may_be_at_work_at_once(prepare_config, tmp_path):
    whole = prepare_config(tmp_path)
    with at_work(tmp_path, task(whole, 1)):
        with pytest.raises(InputError, match=rf"^{tmp_path}: another build is at work in this directory; wait"):
            build(whole)
        with pytest.raises(InputError, match=rf"^{tmp_path}: task 1 is at work in this directory already; give every"):
            build(task(whole, 1))
        assert build(task(whole, 0)) is None
    with at_work(tmp_path, whole), pytest.raises(InputError, match="another build is at work in this directory"):
        build(task(whole, 2))


def test_tasks_with_other_settings_are_refused(prepare_config, parts, tmp_path):
    config = prepare_config(tmp_path / "data", input=(parts,))
    with pytest.raises(InputError, match="waited 0 minutes"):
        build(task(config, 0))
    with pytest.raises(InputError, match="holds an unfinished build with seed 12345 instead of 3; choose another"):
        build(task(dataclasses.replace(config, seed=3), 1))
    (tmp_path / "part-4.txt").write_text("Another text.\n")
    with pytest.raises(InputError, match="holds an unfinished build with other files as input; choose another"):
        build(task(config, 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_tasks": "4"}, "task_index: found none, expected 0 to 3, as num_tasks is 4"),
        ({"num_tasks": "4", "task_index": "4"}, "task_index: found 4, expected 0 to 3, as num_tasks is 4"),
        ({"task_index": "2"}, r"task_index 2 is of how many\? set num_tasks too"),
        ({"num_tasks": "4", "task_index": "0", "engine": "mpi"}, "num_tasks 4 needs engine local, found mpi; choose"),
        ({"engine": "mpi", "workers": "2"}, "workers 2 counts processes of engine local; engine mpi has as many as"),
        ({"scheduler": "tcp://a:1"}, "a scheduler, tcp://a:1, is named but engine is local; set it to dask"),
        (
            {"engine": "dask", "scheduler": "tcp://a:1", "scheduler_file": "f"},
            "scheduler tcp://a:1 and scheduler_file f: name one of them",
        ),
    ],
)
def test_settings_that_contradict_each_other(values, message):
    with pytest.raises(UsageError, match=f"^command line: {message}"):
        load(PrepareConfig, None, {"input": "a.txt", **values})
