"""The server of `transformers` and PyTorch that benchmarks/serve.py measures; without this project's packages.

python benchmarks/serve_peers.py NAME MODEL_DIR MAX_LENGTH MAX_BATCH_SIZE

FastAPI on uvicorn answers `POST /v1/models/NAME:predict` as TensorFlow Serving does. One thread runs the model, with as
many of the waiting requests as MAX_BATCH_SIZE says, padded to the longest of them.
"""

import asyncio
import json
import os
import queue
import socket
import sys
import threading

import fastapi
import torch
import transformers
import uvicorn

NAME, MODEL_DIR, MAX_LENGTH, MAX_BATCH_SIZE = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
Waiting = tuple[list[str], asyncio.AbstractEventLoop, asyncio.Future]

tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)
model = transformers.AutoModelForSequenceClassification.from_pretrained(MODEL_DIR).eval()
waiting: "queue.SimpleQueue[Waiting]" = queue.SimpleQueue()


def answer(texts: list[str]) -> list[dict]:
    """Label and scores of every text."""
    encoded = tokenizer(texts, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
    with torch.inference_mode():
        scores = model(**encoded).logits.softmax(-1)
    labels = [model.config.id2label[number] for number in scores.argmax(-1).tolist()]
    return [{"label": label, "scores": row} for label, row in zip(labels, scores.tolist(), strict=True)]


def work() -> None:
    """Answers what waits, for ever. While one batch runs the next one gathers."""
    while True:
        batch = [waiting.get()]
        while sum(len(texts) for texts, _, _ in batch) < MAX_BATCH_SIZE:
            try:
                batch.append(waiting.get_nowait())
            except queue.Empty:
                break
        answers = iter(answer([text for texts, _, _ in batch for text in texts]))
        for texts, loop, future in batch:
            loop.call_soon_threadsafe(future.set_result, [next(answers) for _ in texts])


app = fastapi.FastAPI()


@app.post("/v1/models/{name}:predict")
async def predict(request: fastapi.Request, name: str) -> fastapi.Response:
    """Answers to `instances`."""
    texts = json.loads(await request.body())["instances"]
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    waiting.put((texts, loop, future))
    body = json.dumps({"predictions": await future})
    return fastapi.Response(body, media_type="application/json")


def main() -> None:
    """Serves until it is told to stop."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    answer(["warm up"])
    threading.Thread(target=work, daemon=True).start()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()  # who comes before uvicorn does waits
        print(f"http://127.0.0.1:{bound.getsockname()[1]}/", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")).run(sockets=[bound])


if __name__ == "__main__":
    main()
