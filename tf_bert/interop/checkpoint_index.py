"""The index of a TensorFlow checkpoint: its entries, checked before TensorFlow opens the files.

TensorFlow's own reader believes the sizes and shapes that an index states: on a damaged or made-up one it allocates
what they say, or ends the process. So every number is checked here against the files first. The format is that of
`tensorflow/core/util/tensor_bundle`, entries in a table of `tensorflow/core/lib/io` (LevelDB's).
"""

import dataclasses
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_shape_pb2
from tensorflow.core.protobuf import tensor_bundle_pb2

from tf_bert.errors import InputError

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes: two handles, padding, magic
_TRAILER = 5  # bytes after a block: kind of compression and checksum
_LONGEST_INDEX = 8 << 20  # bytes; BERT-large with its optimizer takes 0.2 MB
_MOST_DIMENSIONS = 8
_MOST_SHARDS = 99_999


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor, as the index describes it."""

    dtype: str
    """TensorFlow's name, such as float32 or string."""
    shape: tuple[int, ...]
    path: Path
    """The data file."""
    offset: int
    """In the data file."""
    size: int
    """Bytes there."""


def read_index(prefix: Path) -> dict[str, Entry]:
    """The entries of a checkpoint by name.

    Args:
      prefix: path of the checkpoint without `.index`.

    Raises:
      InputError: if a file is missing, or a number in the index does not fit the others and the data files.
    """
    path = prefix.with_name(f"{prefix.name}.index")
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _LONGEST_INDEX else b""
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; expected the index of a checkpoint") from error
    if size > _LONGEST_INDEX:
        raise InputError(
            f"{path}: has {size} bytes, expected at most {_LONGEST_INDEX}: this is no checkpoint of a BERT"
        )
    try:
        return _entries(prefix, dict(_Table(content).pairs()))
    except (_Damage, DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is damaged ({error}); copy or download the checkpoint again") from error


class _Damage(ValueError):
    """What is wrong with an index."""


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise _Damage(what)


class _Table:
    """Sorted pairs of keys and values in blocks that an index block lists."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        _require(len(content) >= _FOOTER, f"it has {len(content)} bytes")
        (magic,) = struct.unpack("<Q", content[-8:])
        _require(magic == _MAGIC, "it does not end as an index does")

    def pairs(self) -> Iterator[tuple[str, bytes]]:
        footer = self.content[-_FOOTER:]
        _, position = self._block(footer, 0)  # of meta data, which there is none of
        blocks, _ = self._block(footer, position)
        last = None
        for _, handle in _block_pairs(blocks):
            block, _ = self._block(handle, 0)
            for key, value in _block_pairs(block):
                _require(last is None or last < key, "its names are not in order")
                last = key
                name = key.decode()
                _require(name.isprintable(), f"it holds the name {name!r}")
                yield name, value

    def _block(self, handle: bytes, position: int) -> tuple[bytes, int]:
        """The block that the handle at a position stands for, and where the handle ends."""
        offset, position = _varint(handle, position)
        size, position = _varint(handle, position)
        end = offset + size
        _require(end + _TRAILER + _FOOTER <= len(self.content), "it ends too early")
        _require(self.content[end] == 0, "a block is compressed")
        return self.content[offset:end], position


def _block_pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; a key shares its beginning with the one before it."""
    _require(len(block) >= 4, "a block is too short")
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 - 4 * restarts
    _require(restarts > 0 and end >= 0, "a block is too short")
    starts = struct.unpack(f"<{restarts}I", block[end:-4])
    _require(starts[0] == 0 and all(start <= end for start in starts), "a block points outside of itself")
    key = b""
    position = 0
    begun = set()
    while position < end:
        start = position
        begun.add(start)
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        _require(shared <= len(key) and position + own + length <= end, "an entry points outside of its block")
        _require(shared == 0 or start not in starts, "a block does not begin with a whole name")
        key = key[:shared] + block[position : position + own]
        position += own
        yield key, block[position : position + length]
        position += length
    _require(all(start in begun or end == 0 for start in starts), "a block points into an entry")


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = shift = 0
    while True:
        _require(position < len(content) and shift < 64, "a number does not end")
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _entries(prefix: Path, pairs: dict[str, bytes]) -> dict[str, Entry]:
    _require("" in pairs, "it has no header")
    header = tensor_bundle_pb2.BundleHeaderProto.FromString(pairs.pop(""))
    shards = header.num_shards
    _require(0 < shards <= _MOST_SHARDS, f"it names {shards} data files")
    sizes: dict[Path, int] = {}
    entries: dict[str, Entry] = {}
    for name, value in pairs.items():
        proto = tensor_bundle_pb2.BundleEntryProto.FromString(value)
        if proto.slices:
            raise InputError(f"{prefix}.index: {name} is cut into slices, expected whole variables; save it so")
        _require(0 <= proto.shard_id < shards, f"{name} is in data file {proto.shard_id} of {shards}")
        path = prefix.with_name(f"{prefix.name}.data-{proto.shard_id:05d}-of-{shards:05d}")
        if path not in sizes:
            sizes[path] = _size_of(path)
        entry = Entry(_dtype(name, proto.dtype), _shape(name, proto.shape), path, proto.offset, proto.size)
        _check_extent(name, entry, sizes[path])
        entries[name] = entry
    return entries


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; it belongs to the checkpoint, copy it too"
        ) from error


def _dtype(name: str, number: int) -> str:
    try:
        dtype = tf.dtypes.as_dtype(number)
    except TypeError as error:
        raise _Damage(f"{name} has type {number}") from error
    _require(dtype == dtype.base_dtype, f"{name} has type {number}")
    return str(dtype.name)


def _shape(name: str, proto: tensor_shape_pb2.TensorShapeProto) -> tuple[int, ...]:
    shape = tuple(dimension.size for dimension in proto.dim)
    known = not proto.unknown_rank and len(shape) <= _MOST_DIMENSIONS and all(size >= 0 for size in shape)
    _require(known and math.prod(shape) < 1 << 62, f"{name} has shape {shape}")
    return shape


def _check_extent(name: str, entry: Entry, file_size: int) -> None:
    _require(entry.offset >= 0 and entry.size >= 0, f"{name} lies at {entry.offset}")
    if entry.offset + entry.size > file_size:
        raise InputError(
            f"{entry.path}: has {file_size} bytes, but {name} ends at byte {entry.offset + entry.size}: the file is "
            "cut short; copy or download the checkpoint again"
        )
    width = tf.dtypes.as_dtype(entry.dtype).size
    if entry.dtype not in ("string", "variant", "resource"):
        expected = math.prod(entry.shape) * width
        _require(entry.size == expected, f"{name} has {entry.size} bytes for shape {entry.shape} of {entry.dtype}")
