"""Ranks and what they say to each other: the only module that imports horovod.

`init` gives a world of one unless a launcher (`horovodrun`, `mpirun`) started the process, so that a plain run
neither needs Horovod nor pays for its import. Horovod's Keras wrappers do not work with Keras 3; only its
collectives on tensors are used.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tf_bert.errors import InputError

# What the launchers set for every process: horovodrun with Gloo; Open MPI's mpirun, which Azure ML uses too.
_LAUNCHERS = {"HOROVOD_RANK": "HOROVOD_SIZE", "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE"}

# Types that Horovod broadcasts; others (uint32 seed states, bfloat16) travel as a wider type.
_BROADCAST_DTYPES = frozenset({"uint8", "int8", "int32", "int64", "float16", "float32", "float64", "bool"})


@dataclass(frozen=True)
class World:
    """The ranks that train together: here a single one, for which every collective is the identity.

    All ranks must call the same collectives in the same order.
    """

    rank: int = 0
    """Number of this process, from 0."""
    local_rank: int = 0
    """Its number among the processes on the same machine; also the number of its GPU."""
    world_size: int = 1
    """How many processes there are."""

    def all_reduce_sum(self, tensors: Sequence[Any]) -> list[Any]:
        """Sums over ranks, elementwise; one collective for all tensors, in eager code or inside a `tf.function`.

        Args:
          tensors: `tf.Tensor`s of one dtype (float16, float32, float64, int32 or int64); each position has the same
            shape on every rank.

        Returns:
          As many tensors of the same shapes, equal on all ranks.
        """
        return list(tensors)

    def broadcast_variables(self, variables: Sequence[Any], root: int = 0) -> None:
        """Assigns the values that `variables` have on rank `root` to those of every rank.

        Args:
          variables: Keras variables, in the same order on every rank.
          root: the rank whose values count.
        """

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        """What `value` is on rank `root`, as JSON brings it back (tuples as lists); other ranks' values are ignored.

        Raises:
          TypeError: if `value` is not made of what JSON has.
        """
        return json.loads(json.dumps(value))

    def barrier(self) -> None:
        """Returns once every rank has come here."""


class _HorovodWorld(World):
    """The processes that a launcher started. Reached through `init`, which has initialised Horovod."""

    def all_reduce_sum(self, tensors: Sequence[Any]) -> list[Any]:
        import horovod.tensorflow as hvd

        return list(hvd.grouped_allreduce(list(tensors), op=hvd.Sum))

    def broadcast_variables(self, variables: Sequence[Any], root: int = 0) -> None:
        import horovod.tensorflow as hvd
        import tensorflow as tf

        for variable in variables:
            value = variable.value
            if value.dtype.name in _BROADCAST_DTYPES:
                wire = value.dtype
            else:
                wire = tf.float32 if value.dtype.is_floating else tf.int64
            value.assign(tf.cast(hvd.broadcast(tf.cast(value, wire), root), value.dtype))

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        import horovod.tensorflow as hvd
        import numpy as np
        import tensorflow as tf

        # Horovod's own broadcast_object pickles; JSON cannot run anything where it arrives.
        encoded = json.dumps(value).encode() if self.rank == root else b""
        length = int(hvd.broadcast(tf.constant(len(encoded), tf.int64), root))
        data = np.frombuffer(encoded if self.rank == root else bytes(length), np.uint8)
        return json.loads(hvd.broadcast(tf.constant(data), root).numpy().tobytes())

    def barrier(self) -> None:
        import tensorflow as tf

        self.all_reduce_sum([tf.zeros(())])[0].numpy()


def init() -> World:
    """The world of this process; call it before TensorFlow has touched a GPU, which it binds to the local rank.

    Raises:
      InputError: if a launcher started this process and Horovod is missing, cannot talk to that launcher, or
        finds fewer GPUs than processes on this machine.
    """
    launched_by = next((rank for rank in _LAUNCHERS if rank in os.environ), None)
    if launched_by is None:
        return World()
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        raise InputError(
            f"{launched_by} is set, so a launcher started this process, but Horovod is not installed ({error}); "
            "run scripts/build_horovod.sh, or start a single process without the launcher"
        ) from error
    hvd.init()
    expected = int(os.environ.get(_LAUNCHERS[launched_by], hvd.size()))
    if hvd.size() != expected:
        raise InputError(
            f"the launcher started {expected} processes, Horovod found {hvd.size()}: it was built without this "
            "launcher's library; run scripts/build_horovod.sh where mpicxx is found, or launch with `horovodrun --gloo`"
        )
    _bind_gpu(hvd.local_rank())
    return _HorovodWorld(hvd.rank(), hvd.local_rank(), hvd.size())


def _bind_gpu(local_rank: int) -> None:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus and local_rank >= len(gpus):
        raise InputError(
            f"local rank {local_rank} has no GPU: this machine shows {len(gpus)}; start at most as many processes"
        )
    if gpus:
        tf.config.set_visible_devices(gpus[local_rank], "GPU")
