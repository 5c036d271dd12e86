"""Documents scattered over buckets and back."""

from pathlib import Path

import numpy as np
import pytest

from tf_bert.corpus.blocks import Part
from tf_bert.errors import InputError
from tf_bert.pretraining_data import buckets
from tf_bert.pretraining_data.buckets import Plan, bucket_bytes, read_bucket, read_report, scatter

TEXTS = [f"document {i}" + " word" * (i % 40) for i in range(400)]


@pytest.fixture
def inputs(tmp_path: Path) -> list[Part]:
    files = []
    for i in range(4):
        files.append(tmp_path / f"{i}.txt")
        files[-1].write_text("\n\n".join(TEXTS[i * 100 : i * 100 + 100]))
    return [Part(path) for path in files]


@pytest.mark.parametrize("buffer_bytes", [buckets.BUFFER_BYTES, 3000], ids=["one run", "many runs"])
def test_every_document_is_in_its_bucket_once(inputs, tmp_path, prepare_config, monkeypatch, buffer_bytes):
    monkeypatch.setattr(buckets, "BUFFER_BYTES", buffer_bytes)
    config, plan = prepare_config(tmp_path), Plan(train=7, validation=2)
    spills = [tmp_path / "spill-0", tmp_path / "spill-1"]
    read: list[int] = []
    scatter(inputs[:1], spills[0], config, plan, read.append)
    scatter(inputs[1:], spills[1], config, plan, read.append)
    assert sum(read) == sum(part.size for part in inputs)
    report = read_report(spills, config)
    assert (report.pages, report.documents, report.dropped, report.skipped) == (0, 400, {}, [])
    found = [read_bucket(spills, bucket) for bucket in range(len(plan))]
    assert sorted(text for texts in found for text in texts) == sorted(text.encode() for text in TEXTS)
    for bucket, texts in enumerate(found):
        assert texts and {plan.bucket_of(text, config) for text in texts} == {bucket}
    sizes = [sum(len(text) + 8 for text in texts) for texts in found]
    assert bucket_bytes(spills, plan).tolist() == sizes


def test_a_finished_spill_is_not_done_again_and_an_unfinished_one_is(inputs, tmp_path, prepare_config):
    config, plan = prepare_config(tmp_path), Plan(train=3, validation=1)
    spill = tmp_path / "spill-0"
    spill.write_bytes(b"what a killed process left")
    scatter(inputs, spill, config, plan)
    data = spill.read_bytes()
    assert len(read_bucket([spill], 0)) > 50
    scatter([Part(tmp_path / "not even there.txt")], spill, config, plan)
    assert spill.read_bytes() == data


def test_an_error_while_reading_leaves_the_spill_unfinished(inputs, tmp_path, prepare_config):
    (tmp_path / "bad.txt").write_bytes(b"fine\n\n\xff\xfe\n")
    spill = tmp_path / "spill-0"
    with pytest.raises(InputError, match=r"bad\.txt"):
        scatter([inputs[0], Part(tmp_path / "bad.txt")], spill, prepare_config(tmp_path), Plan(3, 1))
    assert not spill.with_suffix(".npy").exists()


def test_what_is_held_out_depends_on_the_text_alone(tmp_path, prepare_config):
    texts = [f"text {i}".encode() for i in range(3000)]

    def held_out(plan: Plan, **changes) -> set[bytes]:
        config = prepare_config(tmp_path, **changes)
        return {text for text in texts if plan.bucket_of(text, config) >= plan.train}

    tenth = held_out(Plan(9, 2), seed=1)
    assert len(tenth) == pytest.approx(300, abs=80)
    assert tenth == held_out(Plan(30, 1), seed=2, max_seq_length=128)
    assert tenth < held_out(Plan(9, 2), validation_fraction=0.3)
    assert not held_out(Plan(9, 0), validation_fraction=0.0)


def test_buckets_are_of_even_size_and_change_with_the_seed(tmp_path, prepare_config):
    texts, plan = [f"text {i}".encode() for i in range(4000)], Plan(8, 0)
    first, second = (
        np.array([plan.bucket_of(text, prepare_config(tmp_path, seed=seed, validation_fraction=0.0)) for text in texts])
        for seed in (1, 2)
    )
    for chosen in (first, second):
        counts = np.bincount(chosen, minlength=8)
        assert np.abs(counts - 500).max() < 110  # 5 standard deviations
    assert (first == second).mean() == pytest.approx(1 / 8, abs=0.03)


def test_the_plan_follows_the_size_of_the_text(tmp_path, prepare_config):
    for name, size in (("a.txt", 50_000), ("b.xml", 50_000), ("c.xml.bz2", 50_000)):
        (tmp_path / name).write_bytes(b"x" * size)
    files = sorted(tmp_path.iterdir())
    # 50,000 of text + 20,000 in the XML + 80,000 in the compressed XML, at 10,000 a shard, a fifth held out.
    config = prepare_config(tmp_path, shard_megabytes=0.01, validation_fraction=0.2)
    assert Plan.for_files(files, config) == Plan(train=12, validation=3)
    whole = prepare_config(tmp_path, shard_megabytes=8, validation_fraction=0.01)
    assert Plan.for_files(files, whole) == Plan(train=1, validation=1)
    nothing_held_out = prepare_config(tmp_path, shard_megabytes=8, validation_fraction=0.0)
    assert Plan.for_files(files, nothing_held_out) == Plan(train=1, validation=0)


def test_names_of_shards():
    plan = Plan(train=12, validation=2)
    assert plan.name(3) == "train-00003-of-00012"
    assert plan.name(12) == "validation-00000-of-00002"
