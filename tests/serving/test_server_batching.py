"""Batches of what comes at the same time: which requests are run together, and what each gets."""

import threading

import numpy as np
import pytest
from local_servers import running
from standin_exports import write_export

from tf_bert.serving.server.batching import Batcher
from tf_bert.serving.server.refusal import Refusal, Status

SECONDS = 60


class Doubling:
    """Doubles numbers, once it may; -1 is refused."""

    name = "doubling"

    def __init__(self, is_batchable=True):
        self.is_batchable = is_batchable
        self.batches, self.may_run, self.is_running = [], threading.Event(), threading.Semaphore(0)
        self.may_run.set()

    def run(self, inputs):
        self.is_running.release()
        assert self.may_run.wait(SECONDS)
        self.batches.append(inputs["x"].tolist())
        if -1 in inputs["x"]:
            raise Refusal(Status.INVALID, "found -1")
        return {"doubled": inputs["x"] * 2}


@pytest.fixture
def make_batcher():
    """Batchers of 4 examples, of whom 8 may wait; all ended after the test."""
    batchers, counted = [], []

    def make(timeout_micros=0, threads=1):
        batchers.append(Batcher(4, timeout_micros, threads, 8, lambda name, count: counted.append((name, count))))
        return batchers[-1], counted

    yield make
    for batcher in batchers:
        assert batcher.close(SECONDS)


def submit(batcher, signature, *numbers):
    return batcher.submit(signature, {"x": np.array(numbers)}, len(numbers))


def doubled(answer):
    return answer.result(SECONDS)["doubled"].tolist()


@pytest.fixture
def held(make_batcher):
    """A batcher whose thread is kept busy by a batch of one, until `may_run` is set."""
    batcher, counted = make_batcher()
    signature = Doubling()
    signature.may_run.clear()
    first = submit(batcher, signature, 0)
    assert signature.is_running.acquire(timeout=SECONDS)
    return batcher, signature, first, counted


def test_what_waits_is_run_together_and_split_again(held):
    batcher, signature, first, counted = held
    answers = [submit(batcher, signature, *numbers) for numbers in ([1], [2, 3], [4], [5, 6])]
    assert batcher.queued == 6
    signature.may_run.set()
    assert [doubled(answer) for answer in (first, *answers)] == [[0], [2], [4, 6], [8], [10, 12]]
    assert signature.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert counted == [("doubling", 1), ("doubling", 4), ("doubling", 2)] and batcher.queued == 0


def test_a_batch_is_not_larger_than_allowed_and_keeps_the_order(held):
    batcher, signature, _, _ = held
    answers = [submit(batcher, signature, *numbers) for numbers in ([1, 2, 3], [4, 5], [6])]
    signature.may_run.set()
    assert [doubled(answer) for answer in answers] == [[2, 4, 6], [8, 10], [12]]
    assert signature.batches == [[0], [1, 2, 3], [4, 5, 6]]


def test_signatures_are_not_mixed_and_the_oldest_is_first(held):
    batcher, signature, _, _ = held
    other = Doubling()
    answers = [submit(batcher, which, number) for which, number in ((other, 1), (signature, 2), (other, 3))]
    signature.may_run.set()
    assert [doubled(answer) for answer in answers] == [[2], [4], [6]]
    assert other.batches == [[1, 3]] and signature.batches == [[0], [2]]


def test_what_cannot_be_joined_is_run_alone(held):
    batcher, signature, _, _ = held
    alone = Doubling(is_batchable=False)
    answers = [submit(batcher, alone, number) for number in (1, 2)]
    signature.may_run.set()
    assert [doubled(answer) for answer in answers] == [[2], [4]]
    assert alone.batches == [[1], [2]]


def test_a_bad_request_does_not_harm_the_others_of_its_batch(held):
    batcher, signature, _, _ = held
    answers = [submit(batcher, signature, number) for number in (1, -1, 2)]
    signature.may_run.set()
    assert doubled(answers[0]) == [2] and doubled(answers[2]) == [4]
    with pytest.raises(Refusal, match="found -1"):
        answers[1].result(SECONDS)
    assert signature.batches == [[0], [1, -1, 2], [1], [-1], [2]]
    assert doubled(submit(batcher, signature, 7)) == [14]


def test_a_full_queue_refuses_and_a_cancelled_request_makes_room(held):
    batcher, signature, first, _ = held
    answers = [submit(batcher, signature, *numbers) for numbers in ([1, 2, 3, 4], [5, 6, 7])]
    with pytest.raises(Refusal, match="7 examples wait already, and 8 may; try again in a moment") as caught:
        submit(batcher, signature, 8, 9)
    assert caught.value.status is Status.TOO_MANY
    last = submit(batcher, signature, 8)
    assert answers[0].cancel() and batcher.queued == 4
    assert not first.cancel()  # it runs
    signature.may_run.set()
    assert doubled(answers[1]) == [10, 12, 14] and doubled(last) == [16] and doubled(first) == [0]
    assert signature.batches == [[0], [5, 6, 7, 8]]


def test_a_full_batch_does_not_wait_and_others_wait_for_the_timeout(make_batcher):
    batcher, _ = make_batcher(timeout_micros=3600_000_000)
    signature = Doubling()
    waiting = [submit(batcher, signature, *numbers) for numbers in ([1], [2])]
    assert batcher.queued == 2 and signature.batches == []
    assert doubled(submit(batcher, signature, 3, 4)) == [6, 8]
    assert [doubled(answer) for answer in waiting] == [[2], [4]] and signature.batches == [[1, 2, 3, 4]]
    late = submit(batcher, signature, 5)
    assert batcher.close(SECONDS)  # which does not wait for more
    assert doubled(late) == [10]


def test_the_timeout_ends(make_batcher):
    batcher, _ = make_batcher(timeout_micros=1000)
    assert doubled(submit(batcher, Doubling(), 5)) == [10]


def test_closing_runs_what_waits_and_takes_no_more(held):
    batcher, signature, first, _ = held
    waiting = submit(batcher, signature, 1)
    assert not batcher.close(0)
    with pytest.raises(Refusal, match="the server is stopping") as caught:
        submit(batcher, signature, 2)
    assert caught.value.status is Status.STOPPING
    signature.may_run.set()
    assert doubled(first) == [0] and doubled(waiting) == [2]


def test_threads_run_batches_at_the_same_time(make_batcher):
    batcher, _ = make_batcher(threads=2)
    signatures = [Doubling(), Doubling()]
    for signature in signatures:
        signature.may_run.clear()
    answers = [submit(batcher, signature, 3) for signature in signatures]
    for signature in signatures:
        assert signature.is_running.acquire(timeout=SECONDS)
    for signature in signatures:
        signature.may_run.set()
    assert [doubled(answer) for answer in answers] == [[6], [6]]


def test_outputs_of_the_wrong_size_are_an_error_of_the_batch_alone(held):
    batcher, signature, _, _ = held

    class Dropping(Doubling):
        def run(self, inputs):
            return {name: array[:1] for name, array in super().run(inputs).items()}

    dropping = Dropping()
    answers = [submit(batcher, dropping, number) for number in (1, 2)]
    signature.may_run.set()
    assert [doubled(answer) for answer in answers] == [[2], [4]]


def test_clients_of_a_server_share_batches(tmp_path):
    export_dir = write_export(tmp_path / "standin", names=["wait", "fill_mask"])
    gate, path = tmp_path / "gate", "/v1/models/standin:predict"
    masks = {f"{'[MASK] ' * count}".strip(): count for count in range(1, 7)}
    rows = {}
    with running(export_dir, batch_timeout_micros=0) as server, server.client() as client:

        def ask(text, signature="fill_mask"):
            answer = client.post(path, json={"signature_name": signature, "instances": [text]})
            rows[text] = answer.json()["predictions"][0]

        threads = [threading.Thread(target=ask, args=(str(gate), "wait"))]
        threads[0].start()
        while not server.metric("tf_bert_batch_size_count", signature="wait"):
            pass
        threads += [threading.Thread(target=ask, args=(text,)) for text in masks]
        for thread in threads[1:]:
            thread.start()
        while server.metric("tf_bert_queued_examples") < len(masks):
            pass
        gate.touch()
        for thread in threads:
            thread.join()
        assert server.metric("tf_bert_batch_size_count", signature="fill_mask") == 1
        assert server.metric("tf_bert_batch_size_sum", signature="fill_mask") == len(masks)
    assert {text: rows[text]["mask_count"] for text in masks} == masks
    # Outputs are filled up to the longest of the batch, as in TensorFlow Serving; the count says how far they go.
    assert {len(rows[text]["tokens"]) for text in masks} == {6}
