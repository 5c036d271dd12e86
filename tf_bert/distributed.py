"""Ranks and what they say to each other: the only module that imports horovod.

`init` gives a world of one unless a launcher (`horovodrun`, `mpirun`) started the process, so that a plain run
neither needs Horovod nor pays for its import. Horovod's Keras wrappers do not work with Keras 3; only its
collectives on tensors are used.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tf_bert.errors import InputError, OtherRankFailed, UsageError

# What the launchers set for every process: horovodrun with Gloo; Open MPI's mpirun, which Azure ML uses too.
_LAUNCHERS = {"HOROVOD_RANK": "HOROVOD_SIZE", "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE"}

# Milliseconds between two looks for what is to be exchanged, where ranks compute on CPUs: with Horovod's own 1 ms a
# step took a quarter longer (docs/log.md).
_CYCLE_TIME_ON_CPUS = "10"

_FLOAT16_ROOM = 2.0**15  # sums stay below it; float16 ends at 65504

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

    def all_reduce_sum_float16(self, tensors: Sequence[Any]) -> list[Any]:
        """`all_reduce_sum` of float32 tensors that travel as float16, so that each sum is rounded to about 11 bits.

        Each tensor is scaled such that no sum can overflow and next to none underflows: elements below 2**-39 of the
        largest are lost. What is not finite on one rank is not finite in the sum.
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

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that all ranks leave in good order, or none. There must be no collective in it.

        Raises:
          InputError, UsageError: what the block raised, on the lowest rank where it did.
          OtherRankFailed: on all other ranks.
        """
        yield

    @contextlib.contextmanager
    def speaking_once(self) -> Iterator[None]:
        """Around all that the ranks do together: one rank tells why they end.

        Raises:
          InputError: on rank 0, if another rank has ended outside of `together`.
          OtherRankFailed: on other ranks, in the place of that and of Ctrl-C.
        """
        yield

    def alike(self, error: InputError) -> Exception:
        """What to raise for an error that all ranks meet at the same moment."""
        return error if self.rank == 0 else OtherRankFailed()


class _HorovodWorld(World):
    """The processes that a launcher started. Reached through `init`, which has initialised Horovod."""

    def all_reduce_sum(self, tensors: Sequence[Any]) -> list[Any]:
        import horovod.tensorflow as hvd

        return list(hvd.grouped_allreduce(list(tensors), op=hvd.Sum))

    def all_reduce_sum_float16(self, tensors: Sequence[Any]) -> list[Any]:
        import tensorflow as tf

        # The largest sum is at most the sum of the ranks' largest elements.
        (bounds,) = self.all_reduce_sum([tf.stack([tf.reduce_max(tf.abs(tensor)) for tensor in tensors])])
        usable = tf.math.is_finite(bounds) & (bounds > 0.0)
        scales = tf.unstack(tf.where(usable, tf.minimum(_FLOAT16_ROOM / bounds, 2.0**100), 1.0))
        scaled = [tf.cast(tensor * scale, "float16") for tensor, scale in zip(tensors, scales, strict=True)]
        totals = self.all_reduce_sum(scaled)
        return [tf.cast(total, "float32") / scale for total, scale in zip(totals, scales, strict=True)]

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

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        import tensorflow as tf

        failure: InputError | UsageError | None = None
        try:
            yield
        except (InputError, UsageError) as error:
            failure = error
        exit_code = 0 if failure is None else 2 if isinstance(failure, UsageError) else 1
        (codes,) = self.all_reduce_sum([exit_code * tf.one_hot(self.rank, self.world_size, dtype=tf.int32)])
        first = int(tf.argmax(codes > 0))
        if failure and first == self.rank:
            raise failure
        if codes[first] > 0:
            raise OtherRankFailed(int(codes[first]))

    @contextlib.contextmanager
    def speaking_once(self) -> Iterator[None]:
        import tensorflow as tf

        try:
            yield
        except KeyboardInterrupt:
            if self.rank == 0:
                raise
            raise OtherRankFailed() from None
        except tf.errors.OpError as error:
            if "Horovod" not in error.message:
                raise
            if self.rank == 0:
                raise InputError(
                    "ended because another rank has, or cannot be reached: its line or the launcher's says why; the "
                    "same command goes on from the last complete checkpoint"
                ) from error
            raise OtherRankFailed() from error


def init() -> World:
    """The world of this process; call it before TensorFlow has touched a GPU, which it binds to the local rank.

    Raises:
      InputError: if a launcher started this process and Horovod is missing, cannot talk to that launcher, or
        finds fewer GPUs than processes on this machine; if Slurm's srun did, which is no such launcher.
    """
    launcher = launched_by()
    if launcher is None:
        if (tasks := int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))) > 1:
            raise InputError(
                f"srun started {tasks} processes that know nothing of each other; start them with mpirun inside of the "
                "job, see docs/cluster.md"
            )
        return World()
    _start_horovod(launcher)
    import horovod.tensorflow as hvd

    expected = int(os.environ.get(_LAUNCHERS[launcher], hvd.size()))
    if hvd.size() != expected:
        raise InputError(
            f"the launcher started {expected} processes, Horovod found {hvd.size()}: it was built without this "
            "launcher's library; run scripts/build_horovod.sh where mpicxx is found, or launch with `horovodrun --gloo`"
        )
    _bind_gpu(hvd.local_rank())
    return _HorovodWorld(hvd.rank(), hvd.local_rank(), hvd.size())


def _start_horovod(launcher: str) -> None:
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        raise InputError(
            f"{launcher} is set, so a launcher started this process, but Horovod is not installed ({error}); "
            "run scripts/build_horovod.sh, or start a single process without the launcher"
        ) from error
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        os.environ.setdefault("HOROVOD_CYCLE_TIME", _CYCLE_TIME_ON_CPUS)
    hvd.init()


def run_elastic(attempt: Callable[[World], None]) -> None:
    """Calls `attempt` with the world of the moment until it returns, anew whenever ranks are lost or come.

    What `attempt` does must be lost by an end at any moment no more than by a kill: the next one goes on from what is
    on disk.

    Raises:
      InputError: if Horovod is not installed.
      UsageError: if no elastic launcher started this process.
      Exception: what `attempt` raises, but for the loss of another rank.
    """
    if os.environ.get("HOROVOD_ELASTIC") != "1":
        raise UsageError(
            "--elastic: this process was not started by an elastic launcher; start it with horovodrun --min-np 1 "
            "--host-discovery-script FILE, or leave out --elastic"
        )
    _start_horovod("HOROVOD_ELASTIC")
    import horovod.tensorflow as hvd
    import tensorflow as tf
    from horovod.common.exceptions import HorovodInternalError

    _bind_gpu(hvd.local_rank())

    @hvd.elastic.run
    def run(state: Any) -> None:
        try:
            attempt(_HorovodWorld(hvd.rank(), hvd.local_rank(), hvd.size()))
        except tf.errors.OpError as error:
            if "Horovod" not in error.message:
                raise
            raise HorovodInternalError(error.message) from error

    # Nothing of the run is in it: its checkpoints on disk are the state that survives.
    run(hvd.elastic.TensorFlowState(variables=[tf.Variable(0)]))


@contextlib.contextmanager
def rendezvous(ranks: int) -> Iterator[list[dict[str, str]]]:
    """Where `ranks` processes on this machine find each other; yields the environment that makes each a rank.

    Raises:
      InputError: if Horovod is not installed.
    """
    try:
        from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
        from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer
    except ImportError as error:
        raise InputError(
            f"several ranks need Horovod, which is not installed ({error}); run scripts/build_horovod.sh, or leave out "
            "--ranks"
        ) from error
    slots = get_host_assignments(parse_hosts(f"localhost:{ranks}"), ranks)
    server = RendezvousHTTPServer(("127.0.0.1", 0), RendezvousHandler, 0)
    server.init(slots)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    common = {
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(server.server_port),
        "HOROVOD_GLOO_IFACE": "lo",
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_HOSTNAME": "localhost",
        "HOROVOD_SIZE": str(ranks),
        "HOROVOD_LOCAL_SIZE": str(ranks),
        "HOROVOD_CROSS_RANK": "0",
        "HOROVOD_CROSS_SIZE": "1",
    }
    try:
        yield [{**common, "HOROVOD_RANK": str(rank), "HOROVOD_LOCAL_RANK": str(rank)} for rank in range(ranks)]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def launched_by() -> str | None:
    """The variable by which a launcher has told this process its rank, if one has."""
    return next((rank for rank in _LAUNCHERS if rank in os.environ), None)


def _bind_gpu(local_rank: int) -> None:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus and local_rank >= len(gpus):
        raise InputError(
            f"local rank {local_rank} has no GPU: this machine shows {len(gpus)}; start at most as many processes"
        )
    if gpus:
        tf.config.set_visible_devices(gpus[local_rank], "GPU")
        # Without it, the first process on a machine takes nearly all memory of its GPU, NCCL's buffers' share too.
        tf.config.experimental.set_memory_growth(gpus[local_rank], True)
