"""Builds that leave documents out: what is left out, that it is counted, and that the bytes stay reproducible."""

import json
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from builds import files_of, start_build

from tf_bert.cli import main
from tf_bert.config import PrepareConfig
from tf_bert.errors import InputError
from tf_bert.files import sha256_of
from tf_bert.pretraining_data.build import build
from tf_bert.pretraining_data.claim import WORK_DIR
from tf_bert.pretraining_data.manifest import Manifest, read_manifest

ALL_STEPS: dict[str, Any] = {
    "near_duplicate_threshold": 0.8,
    "min_words": 30,
    "scripts": ("latin",),
    "exclude_ngram_words": 8,
}


def kept(manifest: Manifest) -> int:
    return sum(split.counts.documents for split in manifest.splits.values())


def shards_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*.tfrecord")}


@pytest.fixture(scope="module")
def plain_documents(corpus_file) -> list[str]:
    """Documents of more than 30 random words."""
    documents = corpus_file.read_text().strip().split("\n\n")
    return [document for document in documents if len(document.split()) >= 60]


@pytest.fixture(scope="module")
def planted(plain_documents, shared_dir, tmp_path_factory) -> tuple[tuple[str, ...], dict[str, int]]:
    """Plain documents with others among them that a step is to leave out, in two files, and how many there are."""
    pytest.importorskip("datasketch", reason="near-duplicates need the extra dedup")
    lines = (shared_dir / "glue" / "SST-2" / "test.tsv").read_text(encoding="utf-8").split("\n")[1:]
    sentences = [line.split("\t")[1] for line in lines if len(line.split()) > 20][:9]
    texts = {
        "exact duplicate": plain_documents[:7],
        "near duplicate": [f"{document}\nabc" for document in plain_documents[20:30]],
        "too short": [f"only {number} words here" for number in range(11)],
        "other script": [" ".join(["слово"] * (40 + number)) for number in range(12)],
        "excluded n-gram": [f"{text}\n{leak}" for text, leak in zip(plain_documents[50:], sentences, strict=False)],
    }
    documents = [*plain_documents, *(text for group in texts.values() for text in group)]
    directory = tmp_path_factory.mktemp("planted")
    for name, part in (("1.jsonl", documents[1::2]), ("2.jsonl", documents[::2])):
        lines = [json.dumps({"text": text}) + "\n" for text in part]
        (directory / name).write_text("".join(lines), encoding="utf-8")
    return (str(directory / "1.jsonl"), str(directory / "2.jsonl")), {key: len(group) for key, group in texts.items()}


@pytest.fixture(scope="module")
def strict_config(prepare_config, planted, shared_dir) -> Callable[..., PrepareConfig]:
    """Makes a configuration with every step."""
    quality = {**ALL_STEPS, "exclude": (str(shared_dir / "glue" / "SST-2" / "test.tsv"),)}

    def make(output_dir: Path, **changes: Any) -> PrepareConfig:
        return prepare_config(output_dir, input=planted[0], quality=quality | changes)

    return make


@pytest.fixture(scope="module")
def strict_dir(strict_config, tmp_path_factory) -> Path:
    """What is built with every step, to be read only."""
    directory = tmp_path_factory.mktemp("strict") / "data"
    build(strict_config(directory))
    return directory


def test_what_was_planted_is_left_out_and_counted(strict_dir, planted, plain_documents, shared_dir):
    manifest = read_manifest(strict_dir)
    assert manifest.dropped == planted[1]
    assert kept(manifest) == len(plain_documents)
    assert manifest.documents == kept(manifest) + sum(manifest.dropped.values())
    (excluded,) = manifest.excluded
    path = shared_dir / "glue" / "SST-2" / "test.tsv"
    assert (excluded.path, excluded.bytes, excluded.sha256) == (str(path), path.stat().st_size, sha256_of(path))
    assert manifest.config["quality"]["min_words"] == 30 and "exclude" not in manifest.config["quality"]


def test_what_was_left_out_is_shown(strict_dir, planted, capsys):
    assert main(["inspect", str(strict_dir)]) == 0
    shown = capsys.readouterr().out.splitlines()
    manifest = read_manifest(strict_dir)
    (excluded,) = manifest.excluded
    expected = [
        f"  excluded    n-grams of {excluded.path}, {excluded.bytes:,} bytes, sha256 {excluded.sha256[:12]}",
        f"  read        {manifest.documents:>12,}  documents",
        *(
            f"  {'' if number else 'left out':<11} {count:>12,}  {reason}"
            for number, (reason, count) in enumerate(sorted(planted[1].items()))
        ),
    ]
    assert shown[shown.index(expected[0]) :][: len(expected)] == expected


def test_steps_are_asked_for_on_the_command_line(prepare_config, planted, tmp_path, capsys):
    config = prepare_config(tmp_path / "data")
    words = ["prepare", "--input", *planted[0], "--vocab", config.vocab, "--output_dir", config.output_dir]
    words += ["--sentence_splitter", "line", "--validation_fraction", "0", "--max_seq_length", "64"]
    words += ["--quality.min_words", "30", "--quality.scripts", "latin", "greek", "--quality.min_script_share", "0.5"]
    assert main(words) == 0
    reasons = ", ".join(f"{planted[1][key]} {key}" for key in ("exact duplicate", "other script", "too short"))
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{config.output_dir}: of ") and first.endswith(f" documents were left out: {reasons}")


def test_exact_duplicates_alone_are_left_out_by_default(prepare_config, planted, tmp_path, plain_documents):
    dropped = planted[1]
    default = build(prepare_config(tmp_path / "default", input=planted[0]))
    assert default.dropped == {"exact duplicate": dropped["exact duplicate"]}
    assert kept(default) == len(plain_documents) + sum(dropped.values()) - dropped["exact duplicate"]
    whole = build(prepare_config(tmp_path / "all", input=planted[0], quality={"drop_exact_duplicates": False}))
    assert whole.dropped == {} and kept(whole) == whole.documents == default.documents


def test_a_corpus_said_twice_gives_the_shards_of_one_said_once(prepare_config, corpus_file, tmp_path, data_dir):
    (tmp_path / "1.txt").write_bytes(corpus_file.read_bytes())
    (tmp_path / "2.txt").write_bytes(corpus_file.read_bytes())
    files = (str(tmp_path / "1.txt"), str(tmp_path / "2.txt"))
    megabytes = 2 * prepare_config(tmp_path).shard_megabytes
    manifest = build(prepare_config(tmp_path / "data", input=files, shard_megabytes=megabytes))
    assert manifest.dropped == {"exact duplicate": 300}
    assert shards_of(tmp_path / "data") == shards_of(data_dir)


def test_documents_without_a_token_are_counted(prepare_config, tmp_path, corpus_file):
    (tmp_path / "more.txt").write_text("\u200b\n\n\u200b\u200b\n", encoding="utf-8")
    manifest = build(prepare_config(tmp_path / "data", input=(str(corpus_file), str(tmp_path / "more.txt"))))
    assert manifest.dropped == {"no token": 2} and (manifest.documents, kept(manifest)) == (302, 300)


# --- reproducible --------------------------------------------------------------------------------------------


def test_workers_spills_and_their_order_change_nothing(strict_config, strict_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("tf_bert.corpus.splits.LEAST_BYTES", 1)
    monkeypatch.setattr("tf_bert.pretraining_data.buckets.BUFFER_BYTES", 5000)
    with ThreadPoolExecutor(3) as executor:
        build(strict_config(tmp_path / "data"), executor)
    assert files_of(tmp_path / "data") == files_of(strict_dir)


@pytest.mark.parametrize("stage", ["find_near_duplicates", "build_shard", "_merge"])
def test_an_interrupted_build_goes_on_to_the_same_bytes(strict_config, strict_dir, tmp_path, monkeypatch, stage):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"tf_bert.pretraining_data.build.{stage}", interrupt)
        build(strict_config(tmp_path / "data"))
    build(strict_config(tmp_path / "data"))
    assert files_of(tmp_path / "data") == files_of(strict_dir)


def test_a_build_killed_after_it_has_compared_goes_on_to_the_same_bytes(strict_config, strict_dir, tmp_path):
    config = strict_config(tmp_path / "data")
    process = start_build(config)
    while process.poll() is None and not (tmp_path / "data" / WORK_DIR / "near_duplicates.npy").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the build ended before it could be killed"
    build(config)
    assert files_of(tmp_path / "data") == files_of(strict_dir)


# --- refusals ------------------------------------------------------------------------------------------------


def test_other_steps_and_other_excluded_files_are_refused(strict_config, strict_dir, tmp_path, shared_dir):
    with pytest.raises(InputError, match=r"holds data built with quality\.min_words 30 instead of 31; choose another"):
        build(strict_config(strict_dir, min_words=31))
    changed = tmp_path / "test.tsv"
    content = (shared_dir / "glue" / "SST-2" / "test.tsv").read_bytes()
    changed.write_bytes(content + b"\n")
    with pytest.raises(InputError, match=r"holds data built with other files as quality\.exclude; choose another out"):
        build(strict_config(strict_dir, exclude=(str(changed),)))
    changed.write_bytes(content)
    assert build(strict_config(strict_dir, exclude=(str(changed),))) == read_manifest(strict_dir)


def test_a_changed_excluded_file_is_read_anew(prepare_config, tmp_path, corpus_file):
    (tmp_path / "test.txt").write_text("these words are nowhere\n")
    quality = {"exclude": (str(tmp_path / "test.txt"),), "exclude_ngram_words": 3}
    assert build(prepare_config(tmp_path / "before", quality=quality)).dropped == {}
    (tmp_path / "test.txt").write_text(corpus_file.read_text().split("\n\n")[5])
    assert build(prepare_config(tmp_path / "after", quality=quality)).dropped == {"excluded n-gram": 1}


def test_everything_left_out_is_one_line(prepare_config, tmp_path, corpus_file):
    documents = corpus_file.read_text().strip().split("\n\n")
    short = sum(len(document.split()) < 60 for document in documents)
    quality = {"min_words": 60, "scripts": ("greek", "thai")}
    with pytest.raises(InputError) as caught:
        build(prepare_config(tmp_path / "data", quality=quality))
    assert 0 < short < 150
    assert str(caught.value) == (
        f"{corpus_file}: quality left out each of the 300 documents (other script {300 - short}, too short {short}); "
        "loosen the settings that say so, or check input and format"
    )
    build(prepare_config(tmp_path / "data", quality={"min_words": 60}))  # as the message says


@pytest.mark.parametrize("missing", ["file", "library"])
def test_what_a_step_lacks_is_said_before_anything_is_written(prepare_config, tmp_path, monkeypatch, missing):
    quality: dict[str, Any] = {"exclude": (str(tmp_path / "absent.tsv"),)}
    message = r"^/.*absent\.tsv: cannot be read: No such file or directory"
    if missing == "library":
        monkeypatch.setitem(sys.modules, "datasketch", None)
        quality, message = {"near_duplicate_threshold": 0.8}, r"which is missing; pip install 'tf_bert\[dedup\]'"
    with pytest.raises(InputError, match=message):
        build(prepare_config(tmp_path / "data", quality=quality))
    assert not (tmp_path / "data").exists()
