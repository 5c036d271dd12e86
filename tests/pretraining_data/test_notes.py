"""What a task is at is on disk while it is at it, and in the message when its memory runs out."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from launchers import environment

from tf_bert.config import to_dict
from tf_bert.pretraining_data.notes import noting, read_notes

SCATTER_SCRIPT = """
import json, pathlib, resource, sys
from tf_bert.config import PrepareConfig
from tf_bert.corpus.blocks import Part
from tf_bert.errors import InputError
from tf_bert.pretraining_data.buckets import Plan, scatter
config = PrepareConfig(**json.loads(sys.argv[1]))
files, spill = map(pathlib.Path, config.input), pathlib.Path(config.output_dir) / "spill"
size = int(pathlib.Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (30 << 20), size + (30 << 20)))
try:
    scatter([Part(file) for file in files], spill, config, Plan(3, 1))
except InputError as error:
    sys.exit(str(error))
"""

BEGINNING = ("Erste Zeile. Übrige." * 9)[:95].rstrip("Ü")  # 100 bytes, at most


def test_a_note_is_there_while_the_task_runs(tmp_path):
    path = tmp_path / "a.note"
    with noting(path, "shard", "its beginning") as note:
        for place, noted in (
            (("Häuser.txt", 'page "東京"'), 'Häuser.txt: page "東京"'),
            (("short",), "short"),
            (("x" * 1000,), "x" * (512 - len(f"{socket.gethostname()} {os.getpid()} "))),
            (("shard", "Erste Zeile.\nÜbrige.".encode() * 9), f'shard: the document that begins "{BEGINNING}"'),
        ):
            note.at(*place)
            note.write()
            (read,) = read_notes([tmp_path / "absent.note", path])
            assert (read.path, read.host, read.pid, read.place) == (path, socket.gethostname(), os.getpid(), noted)
    assert list(tmp_path.iterdir()) == []


def test_long_documents_are_noted_at_once_and_short_ones_after_a_pause(tmp_path):
    def noted():
        return read_notes([path])[0].place

    path = tmp_path / "a.note"
    with noting(path, "task") as note:
        note.at("long", b"x" * 100_000)
        assert noted().startswith('long: the document that begins "xxx')
        place = None
        while noted() != place:  # as long as documents come
            place = str(time.monotonic())
            note.at(place)


def test_a_note_that_was_never_written_is_none(tmp_path):
    (tmp_path / "a.note").touch()
    assert read_notes([tmp_path / "a.note"]) == []


def test_an_error_removes_the_note_and_stays_what_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError), noting(tmp_path / "a.note", "task"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_memory_that_runs_out_is_one_line_with_the_document(prepare_config, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("A small document.\nOf two lines.\n\n" + "A very long document. " * 2_500_000 + "\n\nThe end.\n")
    config = prepare_config(tmp_path, input=(str(corpus),))
    process = subprocess.Popen(
        [sys.executable, "-c", SCATTER_SCRIPT, json.dumps(to_dict(config))],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TF_CPP_MIN_LOG_LEVEL="3"),
    )
    _, complaint = process.communicate()
    assert process.returncode == 1
    assert complaint == (
        f"process {process.pid} ran out of memory at {corpus}: line 1; use fewer workers, a smaller shard_megabytes or "
        "more memory, or take the document out, and run the same command again: it goes on from what is finished\n"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"corpus.txt"}
