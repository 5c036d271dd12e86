"""Damaged and made-up files: they are read rightly or refused in one line, and no process ends or grows over them."""

import os
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import fuzz_worker
import numpy as np
import pytest
import tensorflow as tf
from random_weights import random_weights
from tensorflow.core.framework import tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import tensor_bundle_pb2

from tf_bert.errors import InputError
from tf_bert.interop.checkpoint_index import read_index
from tf_bert.interop.garden_objects import find_objects
from tf_bert.interop.model_garden import write_model_garden
from tf_bert.interop.object_graph import parse_graph
from tf_bert.interop.tf_checkpoint import OBJECT_GRAPH, open_checkpoint, write_checkpoint

pytestmark = pytest.mark.slow


def test_no_damage_ends_a_process_or_makes_it_grow():
    worker = Path(fuzz_worker.__file__)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(worker.parent), *sys.path])}
    done = subprocess.run([sys.executable, str(worker)], capture_output=True, text=True, env=environment, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [(to, name) for to, name, *_ in lines] == list(fuzz_worker.FILES)
    for to, name, read, refused, grown in lines:
        assert int(refused) > 400 and int(grown) < 100
        # What says nothing may be damaged: padding of an index, metadata of a header, a tensor that is left out.
        assert int(read) < (1 if to == "google" and "data-" in name else 40), (to, name)


# An index that is damaged by intent has the right checksums. The tables below are written from the format's description
# (doc/table_format.md of LevelDB).
def _crc32c(content: bytes) -> int:
    """CRC-32C, bit by bit, masked as TensorFlow does it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80]) + _varint(number >> 7) if number > 0x7F else bytes([number])


def _block(pairs: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    """A block whose keys share nothing, with its trailer."""
    content, starts = b"", []
    for key, value in pairs:
        starts.append(len(content))
        content += b"\0" + _varint(len(key)) + _varint(len(value)) + key + value
    content += struct.pack(f"<{len(starts) or 1}I", *(starts or [0])) + struct.pack("<I", len(starts) or 1)
    return content + bytes([kind]) + struct.pack("<I", _crc32c(content + bytes([kind])))


def _table(pairs: list[tuple[bytes, bytes]], kind: int = 0, size: int | None = None) -> bytes:
    data, meta = _block(pairs, kind), _block([])
    handle = _varint(0) + _varint(len(data) - 5 if size is None else size)
    index = _block([(b"\xff", handle)])
    footer = _varint(len(data)) + _varint(len(meta) - 5) + _varint(len(data + meta)) + _varint(len(index) - 5)
    return data + meta + index + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def _entry(shape=(2, 3), dtype=types_pb2.DT_FLOAT, **fields) -> bytes:
    proto = tensor_shape_pb2.TensorShapeProto(dim=[{"size": size} for size in shape])
    content = np.arange(6, dtype="float32").tobytes()
    settings = {"dtype": dtype, "shape": proto, "size": 24, "crc32c": _crc32c(content)} | fields
    return tensor_bundle_pb2.BundleEntryProto(**settings).SerializeToString()


def _header(shards: int = 1) -> bytes:
    return tensor_bundle_pb2.BundleHeaderProto(num_shards=shards, version={"producer": 1}).SerializeToString()


def _written(directory: Path, index: bytes) -> Path:
    (directory / "c.data-00000-of-00001").write_bytes(np.arange(6, dtype="float32").tobytes())
    (directory / "c.index").write_bytes(index)
    return directory / "c"


def test_an_index_that_is_made_so_is_read(tmp_path):
    prefix = _written(tmp_path, _table([(b"", _header()), (b"x", _entry())]))
    np.testing.assert_array_equal(open_checkpoint(prefix).value("x"), [[0, 1, 2], [3, 4, 5]])


HUGE = 1 << 62


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (_table([(b"", _header()), (b"x", _entry(shape=(-1, 3)))]), "x has shape (-1, 3)"),
        (_table([(b"", _header()), (b"x", _entry(shape=(1 << 40, 1 << 40)))]), "x has shape (1099511627776, "),
        (_table([(b"", _header()), (b"x", _entry(shape=(1,) * 300))]), "x has shape (1, 1, 1"),
        (_table([(b"", _header()), (b"x", _entry(shape=(1 << 40,)))]), "x has 24 bytes for shape (1099511627776,)"),
        (_table([(b"", _header()), (b"x", _entry(dtype=77))]), "x has type 77"),
        (_table([(b"", _header()), (b"x", _entry(dtype=types_pb2.DT_FLOAT_REF))]), "x has type 101"),
        (_table([(b"", _header()), (b"x", _entry(offset=-8))]), "x lies at -8"),
        (_table([(b"", _header()), (b"x", _entry(shard_id=1))]), "x is in data file 1 of 1"),
        (_table([(b"", _header(0)), (b"x", _entry())]), "it names 0 data files"),
        (_table([(b"", _header(1 << 30)), (b"x", _entry())]), "it names 1073741824 data files"),
        (_table([(b"x", _entry())]), "it has no header"),
        (_table([(b"", _header()), (b"y", _entry()), (b"x", _entry())]), "its names are not in order"),
        (_table([(b"", _header()), (b"a\nb", _entry())]), "it holds the name 'a\\nb'"),
        (_table([(b"", _header()), (b"x", b"\xff")]), "Error parsing message"),
        (_table([(b"", _header())], kind=1), "a block is compressed"),
        (_table([(b"", _header())], size=HUGE), "it ends too early"),
        (b"", "it has 0 bytes"),
        (bytes(100), "it does not end as an index does"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_tensorflow_sees_them(tmp_path, index, message):
    prefix = _written(tmp_path, index)
    with pytest.raises(InputError, match=re.escape(f"c.index: is damaged ({message}")) as caught:
        read_index(prefix)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"shape": (1 << 40,), "size": 4 << 40},
            "of-00001: has 24 bytes, but x ends at byte 4398046511104: the file is",
        ),
        ({"offset": 8}, "of-00001: has 24 bytes, but x ends at byte 32: the file is cut short; copy"),
        (
            {"slices": [{"extent": [{"start": 0, "length": 1}]}]},
            "c.index: x is cut into slices, expected whole var",
        ),
    ],
)
def test_entries_that_the_data_does_not_hold_are_refused(tmp_path, entry, message):
    prefix = _written(tmp_path, _table([(b"", _header()), (b"x", _entry(**entry))]))
    with pytest.raises(InputError, match=re.escape(message)):
        open_checkpoint(prefix)


def test_a_wrong_checksum_of_data_or_index_is_seen(tmp_path):
    prefix = _written(tmp_path, _table([(b"", _header()), (b"x", _entry(crc32c=1))]))
    with pytest.raises(InputError, match=r"c: x: is damaged \(.*Checksum does not match.*\); copy or download"):
        open_checkpoint(prefix).value("x")
    index = bytearray(_table([(b"", _header()), (b"x", _entry())]))
    index[index.index(b"x")] = ord("y")
    with pytest.raises(InputError, match=r"c.index: is damaged"):
        open_checkpoint(_written(tmp_path, bytes(index)))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"c.index: cannot be read: No such file or directory; expected the index"):
        open_checkpoint(tmp_path / "c")
    prefix = _written(tmp_path, _table([(b"", _header()), (b"x", _entry())]))
    (tmp_path / "c.data-00000-of-00001").unlink()
    with pytest.raises(InputError, match=r"c.data-00000-of-00001: cannot be read: No such file or directory; it bel"):
        open_checkpoint(prefix)


def test_an_index_of_great_length_is_not_read(tmp_path):
    with open(tmp_path / "c.index", "wb") as file:
        file.truncate(1 << 40)  # of holes
    with pytest.raises(InputError, match=r"c.index: has 1099511627776 bytes, expected at most \d+: this is no checkp"):
        open_checkpoint(tmp_path / "c")


def test_a_description_of_objects_with_a_false_length_is_not_read(tmp_path):
    write_checkpoint(tmp_path / "c", [(OBJECT_GRAPH, np.array(b"x" * 50))])
    data = tmp_path / "c.data-00000-of-00001"
    content = data.read_bytes()
    assert content[0] == 50
    for damaged in (b"\x7f" + content[1:], b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + content[9:]):
        data.write_bytes(damaged)
        with pytest.raises(InputError, match=f"c: {OBJECT_GRAPH} is damaged; copy or download"):
            open_checkpoint(tmp_path / "c").object_graph()
    write_checkpoint(tmp_path / "c", [(OBJECT_GRAPH, np.float32([1]))])
    with pytest.raises(InputError, match=f"c: {OBJECT_GRAPH} is damaged"):
        open_checkpoint(tmp_path / "c").object_graph()


def test_damaged_descriptions_of_objects_are_refused_or_passed(tmp_path):
    write_model_garden(random_weights(), tmp_path)
    prefix = tmp_path / "bert_model.ckpt"
    checkpoint = open_checkpoint(prefix)
    content = checkpoint.object_graph()
    shapes = {name: entry.shape for name, entry in checkpoint.entries.items()}
    objects = find_objects(parse_graph(content, prefix), shapes, "")
    chooser = random.Random(0)
    outcomes = {True: 0, False: 0}
    for _ in range(1500):
        damaged = bytearray(content)
        damaged[chooser.randrange(len(damaged))] = chooser.randrange(256)
        if chooser.random() < 0.2:
            del damaged[chooser.randrange(len(damaged)) :]
        try:
            graph = parse_graph(bytes(damaged), prefix)
            found = find_objects(graph, shapes, str(prefix))
        except InputError as error:
            assert "\n" not in str(error)
            outcomes[False] += 1
        else:
            assert all(number < len(graph.children) for number in found.values())
            outcomes[True] += 1
    assert objects and min(outcomes.values()) > 50


def test_tensorflow_itself_refuses_nothing_of_what_is_written(tmp_path):
    write_checkpoint(tmp_path / "c", [("a", np.float32(1)), ("b/c", np.zeros((2, 0), "int64"))])
    assert {name: entry.shape for name, entry in read_index(tmp_path / "c").items()} == {"a": (), "b/c": (2, 0)}
    assert tf.train.load_checkpoint(str(tmp_path / "c")).get_tensor("b/c").shape == (2, 0)
