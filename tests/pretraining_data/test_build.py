"""Builds are reproducible byte for byte, survive being killed, and refuse what they should in one line."""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from builds import command, files_of, start_build

from tf_bert.config import PrepareConfig, to_dict
from tf_bert.corpus.reader import read_documents
from tf_bert.corpus.sentences import SentenceSplitter
from tf_bert.errors import InputError, UsageError
from tf_bert.pretraining_data import shards
from tf_bert.pretraining_data.build import build, unigram_loss
from tf_bert.pretraining_data.claim import LOCK_FILE, WORK_DIR
from tf_bert.pretraining_data.dataset import read_shard
from tf_bert.pretraining_data.manifest import MANIFEST_FILE, SPLITS, read_manifest
from tf_bert.pretraining_data.schema import parse_row
from tf_bert.tokenization.tokenizer import load_tokenizer
from tf_bert.tokenization.vocab import Vocabulary


def rows_of(data_dir: Path, split: str) -> list[dict[str, np.ndarray]]:
    return [
        parse_row(row) for shard in read_manifest(data_dir).splits[split].shards for row in read_shard(data_dir, shard)
    ]


# --- what is in a data directory -----------------------------------------------------------------------------


def test_directory_holds_shards_vocabulary_and_manifest_alone(data_dir, prepare_config):
    manifest = read_manifest(data_dir)
    shard_names = {shard.name for split in SPLITS for shard in manifest.splits[split].shards}
    assert set(files_of(data_dir)) == shard_names | {MANIFEST_FILE, "vocab.txt", "tokenizer_config.json"}
    config = prepare_config(data_dir)
    vocabulary = Vocabulary.load(data_dir / "vocab.txt")
    assert manifest.vocabulary.size == len(vocabulary) and manifest.vocabulary.sha256 == vocabulary.sha256
    assert vocabulary.tokens == Vocabulary.load(Path(config.vocab)).tokens
    assert (manifest.max_seq_length, manifest.max_examples_per_row, manifest.seed) == (64, 8, config.seed)
    (source,) = manifest.sources
    assert source.path == config.input[0] and source.bytes == Path(config.input[0]).stat().st_size
    assert "output_dir" not in manifest.config and manifest.config["validation_fraction"] == 0.1


def test_counts_are_those_of_the_corpus_and_of_the_rows(data_dir, prepare_config):
    config = prepare_config(data_dir)
    splits = read_manifest(data_dir).splits
    documents = list(read_documents(config))
    splitter, tokenizer = SentenceSplitter(config), load_tokenizer(data_dir)
    sentences = [sentence for document in documents for sentence in splitter.split(document.text)]
    tokens = tokenizer.tokenize(sentences).flat_values.shape[0]
    counts = splits["train"].counts + splits["validation"].counts
    assert (counts.documents, counts.sentences, counts.tokens) == (len(documents), len(sentences), tokens)
    assert splits["validation"].counts.documents == pytest.approx(len(documents) / 10, abs=18)
    for split in SPLITS:
        counts, rows = splits[split].counts, rows_of(data_dir, split)
        assert counts.rows == len(rows) == splits[split].records
        assert counts.row_tokens == sum(len(row["input_ids"]) for row in rows)
        assert counts.examples == sum(len(row["example_lengths"]) for row in rows)
        assert counts.random_next == sum(row["next_sentence_labels"].sum() for row in rows)
        assert splits[split].fill == pytest.approx(counts.row_tokens / (64 * len(rows)))


def test_rows_are_made_of_the_corpus(data_dir, prepare_config):
    config = prepare_config(data_dir)
    vocabulary, tokenizer = Vocabulary.load(data_dir / "vocab.txt"), load_tokenizer(data_dir)
    texts = {" ".join(map(str, ids)) for ids in tokenizer.tokenize([d.text for d in read_documents(config)]).to_list()}
    corpus = " | ".join(sorted(texts))
    owner: dict[str, set[str]] = {}
    for split in SPLITS:
        for row in rows_of(data_dir, split)[:150]:
            ends = np.cumsum(row["example_lengths"])
            assert ends[-1] == len(row["input_ids"]) <= 64 and len(ends) <= 8
            for start, end, a_length in zip(ends - row["example_lengths"], ends, row["segment_a_lengths"], strict=True):
                ids = row["input_ids"][start:end].tolist()
                assert ids[0] == vocabulary.cls_id and ids[a_length - 1] == ids[-1] == vocabulary.sep_id
                segments = ids[1 : a_length - 1], ids[a_length:-1]
                for segment in segments:
                    assert segment and not {vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id} & set(segment)
                    assert " ".join(map(str, segment)) in corpus
                owner.setdefault(" ".join(map(str, segments[0])), set()).add(split)
    # No text of one split is in the other.
    assert not [segment for segment, splits in owner.items() if len(splits) == 2 and len(segment) > 40]


def test_unigram_loss():
    train, validation = np.array([3, 0, 1]), np.array([1, 2, 0])
    expected = -(math.log(4 / 7) + 2 * math.log(1 / 7)) / 3
    assert unigram_loss(train, validation) == pytest.approx(expected, rel=1e-12)
    assert unigram_loss(train, np.zeros(3, np.int64)) is None


def test_unigram_loss_of_a_build_counts_the_tokens_of_its_rows(data_dir):
    vocabulary = Vocabulary.load(data_dir / "vocab.txt")
    counts = {}
    for split in SPLITS:
        ids = np.concatenate([row["input_ids"] for row in rows_of(data_dir, split)])
        counts[split] = Counter(ids[(ids != vocabulary.cls_id) & (ids != vocabulary.sep_id)].tolist())
    total = sum(counts["train"].values()) + len(vocabulary)
    losses = [-n * math.log((counts["train"][token] + 1) / total) for token, n in counts["validation"].items()]
    expected = sum(losses) / sum(counts["validation"].values())
    assert read_manifest(data_dir).validation_unigram_loss == pytest.approx(expected, rel=1e-9)


def test_nothing_is_held_out_when_none_is_asked_for(prepare_config, tmp_path):
    manifest = build(prepare_config(tmp_path / "data", validation_fraction=0.0))
    assert manifest.validation_unigram_loss is None
    assert manifest.splits["validation"].shards == [] and manifest.splits["validation"].counts.documents == 0
    assert manifest.splits["train"].counts.documents == 300


def test_the_real_dump(wikipedia_dump, tmp_path, shared_vocabulary):
    config = PrepareConfig(
        input=(str(wikipedia_dump),),
        output_dir=str(tmp_path / "data"),
        vocab=str(shared_vocabulary),
        format="wikipedia",
        max_seq_length=128,
        validation_fraction=0.05,
        shard_megabytes=1.0,
    )
    manifest = build(config)
    train, validation = (manifest.splits[split] for split in SPLITS)
    assert train.counts.documents + validation.counts.documents == 106
    assert validation.counts.documents >= 1
    assert train.fill > 0.98
    assert 0.5 < train.counts.random_next / train.counts.examples < 0.6
    tokenizer = load_tokenizer(tmp_path / "data")
    text = " ".join(tokenizer.to_text(row["input_ids"].tolist()) for row in rows_of(tmp_path / "data", "train"))
    assert "anarchism" in text and "[[" not in text and "{{" not in text
    assert 5 < manifest.validation_unigram_loss < 8


@pytest.fixture(scope="session")
def shared_vocabulary(tmp_path_factory, wikipedia_dump) -> Path:
    """The most frequent words of the real dump, and all its characters."""
    config = PrepareConfig(input=(str(wikipedia_dump),))
    words = Counter(word for document in read_documents(config) for word in document.text.lower().split())
    letters = sorted({letter for word in words for letter in word if letter.isprintable()})
    common = [word for word, _ in words.most_common(4000) if len(word) > 1 and word.isalpha()]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *common]
    path = tmp_path_factory.mktemp("shared") / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


# --- reproducible, whatever happens --------------------------------------------------------------------------


def test_builds_are_equal_byte_for_byte(data_dir, prepare_config, tmp_path):
    build(prepare_config(tmp_path / "again"))
    assert files_of(tmp_path / "again") == files_of(data_dir)


def test_workers_and_spill_runs_change_nothing(data_dir, prepare_config, tmp_path, monkeypatch):
    monkeypatch.setattr("tf_bert.pretraining_data.buckets.BUFFER_BYTES", 5000)
    monkeypatch.setattr("tf_bert.pretraining_data.shards.TOKENIZER_BATCH", 10)
    with ThreadPoolExecutor(3) as executor:
        build(prepare_config(tmp_path / "parallel"), executor)
    assert files_of(tmp_path / "parallel") == files_of(data_dir)


def test_the_order_and_place_of_input_files_change_no_shard(data_dir, prepare_config, corpus_file, tmp_path):
    documents = corpus_file.read_text().strip().split("\n\n")
    for number, part in enumerate((documents[200:], documents[:150], documents[150:200])):
        (tmp_path / f"part-{number}.txt").write_text("\n\n".join(part) + "\n")
    build(prepare_config(tmp_path / "data", input=(str(tmp_path / "*.txt"),)))
    ours, theirs = files_of(tmp_path / "data"), files_of(data_dir)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} == {MANIFEST_FILE}


def test_the_seed_changes_the_rows_but_not_what_is_held_out(data_dir, prepare_config, tmp_path):
    manifest = build(prepare_config(tmp_path / "data", seed=7))
    for split in SPLITS:
        assert manifest.splits[split].counts.tokens == read_manifest(data_dir).splits[split].counts.tokens
        ours = {row["input_ids"].tobytes() for row in rows_of(tmp_path / "data", split)}
        assert len(ours & {row["input_ids"].tobytes() for row in rows_of(data_dir, split)}) < 0.5 * len(ours)


def test_a_killed_build_goes_on_to_the_same_bytes(data_dir, prepare_config, tmp_path):
    config = prepare_config(tmp_path / "data")
    entries = tmp_path / "data" / WORK_DIR / "entries"
    process = start_build(config)
    while process.poll() is None and len(list(entries.glob("*.json"))) < 2:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the build ended before it could be killed"
    assert not (tmp_path / "data" / MANIFEST_FILE).exists()
    finished = {path: path.stat().st_mtime_ns for path in entries.glob("*.json")}
    assert 2 <= len(finished) < len(read_manifest(data_dir).splits["train"].shards)
    shard_times = {path.stem: (tmp_path / "data" / f"{path.stem}.tfrecord").stat().st_mtime_ns for path in finished}
    build(config)
    for name, changed in shard_times.items():
        assert (tmp_path / "data" / f"{name}.tfrecord").stat().st_mtime_ns == changed, "a finished shard was redone"
    assert files_of(tmp_path / "data") == files_of(data_dir)


def interrupt_after(monkeypatch, tasks: int) -> None:
    """Makes Ctrl-C come once some shards are done."""
    done = []

    def build_shard(task):
        if len(done) == tasks:
            raise KeyboardInterrupt
        done.append(task)
        return shards.build_shard(task)

    monkeypatch.setattr("tf_bert.pretraining_data.build.build_shard", build_shard)


def test_what_an_interrupted_build_left_is_checked(data_dir, prepare_config, tmp_path, monkeypatch):
    output_dir = tmp_path / "data"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 4)
        build(prepare_config(output_dir))
    done = sorted(output_dir.glob("*.tfrecord"))
    assert len(done) == 4
    done[0].write_bytes(done[0].read_bytes()[:-1])
    done[1].unlink()
    (output_dir / WORK_DIR / "entries" / f"{done[2].stem}.json").write_text('{"shard": ')
    (output_dir / "train-00009-of-00010.tfrecord.partial").write_bytes(b"half a shard")
    (output_dir / WORK_DIR / "spill-00000.npy").unlink()
    (output_dir / WORK_DIR / "spill-00000").write_bytes(b"half a spill")
    build(prepare_config(output_dir))
    left = files_of(output_dir)
    left.pop("train-00009-of-00010.tfrecord.partial", None)
    assert left == files_of(data_dir)


def test_a_finished_build_is_not_done_again(data_dir, prepare_config, capsys):
    before = {path: path.stat().st_mtime_ns for path in data_dir.iterdir()}
    assert build(prepare_config(data_dir)) == read_manifest(data_dir)
    assert capsys.readouterr().out == (
        f"{data_dir}: already built from these inputs with these settings; nothing to do\n"
    )
    assert {path: path.stat().st_mtime_ns for path in data_dir.iterdir()} == before


# --- refusals ------------------------------------------------------------------------------------------------


def test_a_finished_build_of_something_else_is_refused(data_dir, prepare_config, tmp_path, corpus_file):
    with pytest.raises(InputError, match=rf"^{data_dir}: holds data built with seed 12345 instead of 1; choose"):
        build(prepare_config(data_dir, seed=1))
    with pytest.raises(InputError, match="holds data built with max_seq_length 64 instead of 128"):
        build(prepare_config(data_dir, max_seq_length=128))
    other = tmp_path / corpus_file.name
    other.write_text(corpus_file.read_text() + "\n\nOne more document.\n")
    with pytest.raises(InputError, match="holds data built with other files as input"):
        build(prepare_config(data_dir, input=(str(other),)))


def test_a_moved_input_is_the_same_input(data_dir, prepare_config, tmp_path, corpus_file):
    moved = tmp_path / corpus_file.name
    moved.write_bytes(corpus_file.read_bytes())
    assert build(prepare_config(data_dir, input=(str(moved),))) == read_manifest(data_dir)


def test_an_unfinished_build_of_something_else_is_refused(prepare_config, tmp_path, monkeypatch):
    output_dir = tmp_path / "data"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 1)
        build(prepare_config(output_dir))
    before = files_of(output_dir)
    message = rf"^{output_dir}: holds an unfinished build with short_seq_prob 0\.1 instead of 0\.2; choose another"
    with pytest.raises(InputError, match=message):
        build(prepare_config(output_dir, short_seq_prob=0.2))
    assert files_of(output_dir) == before


@pytest.mark.parametrize("name", ["notes.txt", "vocab.txt"])
def test_a_directory_that_holds_something_else_is_refused(prepare_config, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"^{tmp_path}: holds {name} but no manifest\.json of a data directory; choo"):
        build(prepare_config(tmp_path))
    assert files_of(tmp_path) == {name: b"mine"}


def test_a_file_in_the_place_of_the_directory_is_refused(prepare_config, tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(InputError, match=r"data: is a file, expected a directory"):
        build(prepare_config(tmp_path / "data"))


def test_an_empty_directory_is_used(prepare_config, tmp_path, data_dir):
    build(prepare_config(tmp_path))
    assert files_of(tmp_path) == files_of(data_dir)


def test_a_second_build_at_once_is_refused(prepare_config, tmp_path):
    work_dir = tmp_path / "data" / WORK_DIR
    work_dir.mkdir(parents=True)
    with open(work_dir / LOCK_FILE, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"data: another build is at work in this directory; wait for it"):
            build(prepare_config(tmp_path / "data"))
    build(prepare_config(tmp_path / "data"))


def test_an_output_inside_of_the_input_is_refused(prepare_config, tmp_path, corpus_file):
    (tmp_path / "corpus.txt").write_bytes(corpus_file.read_bytes())
    with pytest.raises(UsageError, match=rf"^output_dir {tmp_path}/data is inside the input directory {tmp_path}, so"):
        build(prepare_config(tmp_path / "data", input=(str(tmp_path),)))


@pytest.mark.parametrize(
    ("limit", "full_file"), [(60_000, f"{WORK_DIR}/spill-00000"), (8_000, "train-00000-of-")], ids=["pass 1", "pass 2"]
)
def test_a_full_disk_is_one_line_and_the_build_goes_on_later(
    prepare_config, tmp_path, data_dir, monkeypatch, limit, full_file
):
    config = prepare_config(tmp_path / "data")
    if full_file.startswith("train"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_after(patch, 0)
            build(config)
    process = start_build(config, file_size_limit=limit)
    _, message = process.communicate(timeout=100)
    assert process.returncode == 1
    assert message.count("\n") == 1, message
    assert message.startswith(f"{tmp_path / 'data' / full_file}")
    assert "cannot be written: " in message and "; free space or choose another directory" in message
    assert not (tmp_path / "data" / MANIFEST_FILE).exists()
    build(config)
    assert files_of(tmp_path / "data") == files_of(data_dir)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount_point)]
    if not shutil.which("mount") or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield mount_point
    subprocess.run(["umount", str(mount_point)], check=True)


def test_a_disk_that_fills_during_the_second_pass(prepare_config, small_disk, data_dir, monkeypatch):
    config = prepare_config(small_disk / "data")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 4)
        build(config)
    with contextlib.suppress(OSError), open(small_disk / "others", "wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    os.truncate(small_disk / "others", (small_disk / "others").stat().st_size - 5 * 4096)  # less than a shard
    done = subprocess.run(command(config, workers=2), capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(
        rf"tf-bert prepare: {small_disk}/data/\S+: cannot be written: .*No space left on device.*; free space or "
        r"choose another directory\n",
        done.stderr,
    ), done.stderr
    assert not (small_disk / "data" / MANIFEST_FILE).exists()
    assert 4 <= len(list((small_disk / "data" / WORK_DIR / "entries").glob("*.json"))) < 10
    (small_disk / "others").unlink()
    build(config)
    assert files_of(small_disk / "data") == files_of(data_dir)


def test_no_document_held_out(prepare_config, tmp_path):
    (tmp_path / "few.txt").write_text("One document.\nOf two lines.\n")
    config = prepare_config(tmp_path / "data", input=(str(tmp_path / "few.txt"),), validation_fraction=1e-9)
    with pytest.raises(InputError, match=r"validation_fraction 1e-09 holds out none of the documents of .*few\.txt"):
        build(config)
    build(dataclasses.replace(config, validation_fraction=0.0))  # as the message says, without clearing up first


def test_every_document_held_out(prepare_config, tmp_path):
    (tmp_path / "few.txt").write_text("One document.\nOf two lines.\n")
    config = prepare_config(tmp_path / "data", input=(str(tmp_path / "few.txt"),), validation_fraction=0.999999)
    with pytest.raises(InputError, match=r"validation_fraction 0\.999999 holds out every document of .*few\.txt"):
        build(config)


def test_no_document(prepare_config, tmp_path):
    (tmp_path / "blank.txt").write_text("\n \n\n")
    with pytest.raises(InputError, match=r"blank\.txt: no document was found; check input and format"):
        build(prepare_config(tmp_path / "data", input=(str(tmp_path / "blank.txt"),)))


def test_a_damaged_input_can_be_mended_and_the_build_run_again(prepare_config, tmp_path, corpus_file, data_dir):
    mended = tmp_path / corpus_file.name
    mended.write_bytes(corpus_file.read_bytes() + b"\xff")
    config = prepare_config(tmp_path / "data", input=(str(mended),))
    with pytest.raises(InputError, match=rf"^{mended}: "):
        build(config)
    mended.write_bytes(corpus_file.read_bytes())
    assert build(config).splits == read_manifest(data_dir).splits


def test_too_little_text(prepare_config, tmp_path):
    (tmp_path / "one.txt").write_text("A single sentence.\n")
    config = prepare_config(tmp_path / "data", input=(str(tmp_path / "one.txt"),), validation_fraction=0.0)
    with pytest.raises(InputError, match=r"one\.txt: the train split has 1 documents and 1 sentences, from which no"):
        build(config)


def test_a_missing_vocabulary(prepare_config, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt"):
        build(prepare_config(tmp_path / "data", vocab=str(tmp_path / "nowhere.txt")))
    assert not (tmp_path / "data").exists()


# --- progress and memory -------------------------------------------------------------------------------------


def test_progress_counts_every_byte(prepare_config, tmp_path, corpus_file):
    @dataclasses.dataclass
    class Bar:
        total: int
        description: str
        done: int = 0

        def update(self, n: int) -> None:
            self.done += n

    bars: list[Bar] = []

    @contextlib.contextmanager
    def progress(total, description):
        bars.append(Bar(total, description))
        yield bars[-1]

    build(prepare_config(tmp_path / "data"), progress=progress)
    assert [bar.description for bar in bars] == ["checking inputs", "reading", "tokenizing and packing"]
    assert all(bar.done == bar.total > 0 for bar in bars)
    assert [bar.total for bar in bars[:2]] == [corpus_file.stat().st_size] * 2


MEMORY_SCRIPT = """
import json, pathlib, sys
from tf_bert.config import PrepareConfig
from tf_bert.pretraining_data.build import build

def kilobytes(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split(name + ":")[1].split()[0])

for config in sys.argv[1:]:
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at what is held now
    before = kilobytes("VmRSS")
    build(PrepareConfig(**json.loads(config)))
    print((kilobytes("VmHWM") - before) / 1024)
"""


def test_memory_does_not_grow_with_the_corpus(prepare_config, tmp_path, write_corpus):
    configs = []
    small, large = write_corpus(tmp_path / "small.txt", 400), write_corpus(tmp_path / "large.txt", 8000)
    builds = {"first": (small, 0.3), "small": (small, 0.3), "large": (large, 0.3), "in one bucket": (large, 1000.0)}
    for name, (corpus, megabytes) in builds.items():
        config = prepare_config(tmp_path / name, input=(str(corpus),), shard_megabytes=megabytes, max_seq_length=128)
        configs.append(json.dumps(to_dict(config)))
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, *configs], capture_output=True, text=True, env=environment, check=True
    )
    _, small_peak, large_peak, one_bucket_peak = map(float, result.stdout.split())
    # The large corpus is 5 MB larger, which takes some 60 MB where nothing bounds it.
    assert one_bucket_peak - small_peak > 35
    assert large_peak - small_peak < 15
