"""64 connections for a minute, with clients that others wrote: no errors, no growth, and overload is told."""

import asyncio
import time

import grpc.aio
import httpx
import pytest
import tensorflow as tf
from local_servers import serving
from standin_exports import write_export
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

CONNECTIONS = 64
SECONDS = 60
MOST_GROWTH = 64e6  # bytes; allocators keep some of what the first seconds of load took
PREDICT = "/v1/models/standin:predict"
TEXTS = ["", "abc", "a" * 40, "ä" * 2000, "[MASK] 😀 \x00"]


async def load_rest(url: str, until: float, client_number: int) -> int:
    """Asks one request after the other; the number of answers, each of which is looked at."""
    count = 0
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        while time.monotonic() < until:
            texts = [TEXTS[(client_number + count + i) % len(TEXTS)] for i in range(1 + count % 3)]
            response = await client.post(PREDICT, json={"instances": texts})
            assert response.status_code == 200, response.text
            labels = [row["label"] for row in response.json()["predictions"]]
            assert labels == ["long" if len(text.encode()) > 10 else "short" for text in texts]
            count += 1
    return count


async def load_grpc(address: str, until: float, client_number: int) -> int:
    count = 0
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
    async with grpc.aio.insecure_channel(address, options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        while time.monotonic() < until:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "standin"
            text = TEXTS[(client_number + count) % len(TEXTS)].encode()
            request.inputs["text"].CopyFrom(tf.make_tensor_proto([text]))
            response = await stub.Predict(request, timeout=60)
            assert list(response.outputs["label"].string_val) == [b"long" if len(text) > 10 else b"short"]
            count += 1
    return count


async def load(server, seconds: float) -> int:
    until = time.monotonic() + seconds
    clients = [load_rest(server.url, until, number) for number in range(CONNECTIONS // 2)]
    clients += [load_grpc(server.grpc, until, number) for number in range(CONNECTIONS // 2)]
    return sum(await asyncio.gather(*clients))


@pytest.mark.slow
def test_64_connections_get_answers_and_take_no_more_memory(tmp_path):
    export_dir = write_export(tmp_path / "standin")
    with serving(export_dir) as server:
        warm_up = asyncio.run(load(server, 5))
        before = server.metric("process_resident_memory_bytes")
        count = asyncio.run(load(server, SECONDS))
        growth = server.metric("process_resident_memory_bytes") - before
        answered = sum(
            server.metric("tf_bert_requests_total", protocol=protocol, method=method, code=code)
            for protocol, method, code in (("rest", "predict", "200"), ("grpc", "Predict", "OK"))
        )
        batches = server.metric("tf_bert_batch_size_count", signature="serving_default")
        print(f"{count / SECONDS:.0f} answers/s, {answered / batches:.1f} requests a batch, {growth / 1e6:+.1f} MB")
        assert answered == warm_up + count and count > 10 * CONNECTIONS
        assert batches < answered / 2  # requests did share batches
        assert growth < MOST_GROWTH
        assert server.metric("tf_bert_queued_examples") == 0


@pytest.mark.slow
def test_overload_is_told_and_goes_by(tmp_path):
    """More clients than may wait, for a model that waits: exactly those who are too many are refused."""
    export_dir = write_export(tmp_path / "standin", names=["wait"])
    gate, room = tmp_path / "gate", 16

    async def overload(server):
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
            waits = client.post(PREDICT, json={"signature_name": "wait", "instances": [str(gate)]})
            first = asyncio.create_task(waits)
            while not await asyncio.to_thread(server.metric, "tf_bert_batch_size_count", signature="wait"):
                pass

            async def ask():
                response = await client.post(PREDICT, json={"instances": ["abc"]})
                refused.append(response) if response.status_code == 429 else answered.append(response)

            refused, answered = [], []
            asks = [asyncio.create_task(ask()) for _ in range(CONNECTIONS)]
            while len(refused) < CONNECTIONS - room:
                await asyncio.sleep(0.01)
            async with grpc.aio.insecure_channel(server.grpc) as channel:
                request = predict_pb2.PredictRequest()
                request.model_spec.name = "standin"
                request.inputs["text"].CopyFrom(tf.make_tensor_proto([b"abc"]))
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            gate.touch()
            await asyncio.gather(first, *asks)
            return refused, answered

    with serving(export_dir, "--max_queued_examples", str(room), "--max_batch_size", str(room)) as server:
        refused, answered = asyncio.run(overload(server))
        assert len(answered) == room and {response.status_code for response in answered} == {200}
        assert {response.json()["error"] for response in refused} == {
            f"{room} examples wait already, and {room} may; try again in a moment"
        }
        assert asyncio.run(load_rest(server.url, time.monotonic() + 0.5, 0)) > 0


@pytest.mark.slow
def test_many_versions_take_no_more_memory(tmp_path):
    """Every version holds 40 MB of weights."""
    export_dir = write_export(tmp_path / "standin", 1, weights=10_000_000)
    with serving(export_dir, "--poll_seconds", "0.05") as server:
        sizes = []
        for number in range(2, 12):
            write_export(export_dir, number, weights=10_000_000)
            while f"standin: version {number - 1} is unloaded" not in server.lines:
                time.sleep(0.05)
            asyncio.run(load_rest(server.url, time.monotonic() + 0.2, 0))
            sizes.append(server.metric("process_resident_memory_bytes"))
        print(" ".join(f"{size / 1e6:.0f}" for size in sizes), "MB")
        assert sizes[-1] - sizes[2] < 100e6  # of 320 MB that would have stayed
