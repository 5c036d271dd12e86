"""Collectives between two real processes, and the world of one that needs none."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from launchers import LAUNCHERS, environment, needs_horovod, run_ranks

from tf_bert import distributed
from tf_bert.errors import InputError

WORKER = Path(__file__).with_name("collectives_worker.py")
LARGE = 1 << 24


@pytest.fixture(scope="module", params=LAUNCHERS)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks found, one dictionary each, under each launcher that this machine has."""
    directory = tmp_path_factory.mktemp(request.param)
    run_ranks(request.param, [sys.executable, str(WORKER), str(directory)])
    return [json.loads((directory / f"rank{rank}.json").read_text()) for rank in range(2)]


@needs_horovod
def test_ranks_without_a_gpu_look_for_work_every_10_ms(ranks: list[dict[str, Any]]) -> None:
    import tensorflow as tf

    expected = None if tf.config.list_physical_devices("GPU") else "10"
    assert [found["cycle_time"] for found in ranks] == [expected] * 2


@needs_horovod
def test_two_ranks(ranks: list[dict[str, Any]]) -> None:
    for rank, results in enumerate(ranks):
        assert (results["rank"], results["local_rank"], results["world_size"]) == (rank, rank, 2)
        assert results["eager"] == [[[3.0] * 3] * 2, 30.0, []]
        assert results["integers"] == 2 * (LARGE + 1)
        # x / total is 1/3 and 2/3; three times each, summed over ranks, is 3.
        assert results["graph"] == [[pytest.approx(3.0, rel=1e-6), 6.0]] * 3
        assert results["variables"] == [[1.0, 1.0], [LARGE + 1] * 2, [2**32 - 1, 7], [1.0, 1.0]]
        # Two numbers and their sum are rounded to 11 bits each, whatever their size.
        assert all(0 < error < 2**-9 for error in results["float16_error"])
        assert results["float16_odd"] == [[True, False], [True, False], [True, True]]
        assert results["float16_zero"] == [0.0, 0.0]
        assert results["from_last"] == 2.0
        assert results["object"] == {"checkpoint": "step-7", "naïve": [1, None]}
        assert results["long_object"] == 1_000_000
        assert results["arrived_before_the_barrier_opened"] == 2


def test_a_plain_process_is_a_world_of_one_and_imports_no_horovod() -> None:
    code = (
        "import sys; from tf_bert import distributed; assert distributed.init() == distributed.World(0, 0, 1); "
        "sys.exit(any(name in sys.modules for name in ('horovod', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment()).returncode == 0


def test_collectives_of_a_world_of_one() -> None:
    world = distributed.World()
    assert world.all_reduce_sum([1.0, 2.0]) == [1.0, 2.0]
    world.barrier()
    # The same value comes back as from another rank, and what JSON does not have fails here too.
    assert world.broadcast_object({"steps": (1, 2)}) == {"steps": [1, 2]}
    with pytest.raises(TypeError, match="not JSON serializable"):
        world.broadcast_object(Path("checkpoint"))


def test_processes_of_srun_alone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "16")
    with pytest.raises(
        InputError, match=r"srun started 16 processes that know nothing of each other; start them with m"
    ):
        distributed.init()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert distributed.init() == distributed.World()


@pytest.mark.parametrize("variable", ["HOROVOD_RANK", "OMPI_COMM_WORLD_RANK"])
def test_launched_without_horovod(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "0")
    monkeypatch.setitem(sys.modules, "horovod", None)  # makes the import fail as it does where Horovod is missing
    with pytest.raises(InputError, match=rf"{variable} is set.*Horovod is not installed.*build_horovod\.sh"):
        distributed.init()


@needs_horovod
def test_a_launcher_that_horovod_cannot_talk_to() -> None:
    # As under the mpirun of another MPI than Horovod was built with: every process would take itself for the only one.
    code = "from tf_bert import distributed; distributed.init()"
    launched = environment(OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="2", TF_CPP_MIN_LOG_LEVEL="2")
    done = subprocess.run([sys.executable, "-c", code], env=launched, capture_output=True, text=True, timeout=120)
    assert "InputError: the launcher started 2 processes, Horovod found 1" in done.stderr
