"""Builds that read their files in parts: the same bytes however many read, documents passed over, and the counts."""

import bz2
import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builds import files_of

from tf_bert.cli import main
from tf_bert.corpus import splits
from tf_bert.errors import InputError
from tf_bert.pretraining_data.build import build
from tf_bert.pretraining_data.manifest import MANIFEST_FILE, read_manifest


@pytest.fixture(scope="module")
def poisoned(corpus_file, tmp_path_factory):
    """The small corpus as JSONL in two files, with five lines that cannot be read; and these."""
    directory = tmp_path_factory.mktemp("poisoned")
    lines = [json.dumps({"text": text}) for text in corpus_file.read_text().strip().split("\n\n")]
    places = []
    for name, part, bad in (("1.jsonl", lines[:200], (0, 80, 81)), ("2.jsonl", lines[200:], (50, 101))):
        for number in bad:
            part.insert(number, '{"title": "no text"}')
            places.append((str(directory / name), number + 1))
        (directory / name).write_text("\n".join(part) + "\n")
    return directory, places


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(splits, "LEAST_BYTES", 10_000)


def find(note: str) -> tuple[str, int]:
    """The file and the line in it that a note speaks of."""
    path, line, start, why = re.fullmatch(r"(.*\.jsonl): line (\d+)(?: after byte ([\d,]+))?: (.*)", note).groups()
    assert why == "found the keys ['title'], expected a string under \"text\""
    before = Path(path).read_bytes()[: int((start or "0").replace(",", ""))]
    return path, int(line) + before.count(b"\n")


def shards_of(directory):
    return {name: content for name, content in files_of(directory).items() if name != MANIFEST_FILE}


def test_documents_that_cannot_be_read_are_passed_over_and_change_nothing_else(
    prepare_config, poisoned, tmp_path, data_dir, small_parts
):
    directory, places = poisoned
    config = prepare_config(tmp_path / "one", input=(str(directory),), max_skipped_documents=5)
    manifest = build(config)
    assert [find(note) for note in manifest.skipped] == places
    assert any("after byte" in note for note in manifest.skipped)
    assert (manifest.documents, manifest.pages, manifest.articles) == (300, 0, 0)
    assert shards_of(tmp_path / "one") == shards_of(data_dir)
    with ThreadPoolExecutor(3) as executor:
        build(dataclasses.replace(config, output_dir=str(tmp_path / "three"), max_skipped_documents=9), executor)
    assert files_of(tmp_path / "three") == files_of(tmp_path / "one")


@pytest.mark.parametrize("workers", [1, 3])
def test_the_limit_holds_over_all_parts_and_can_be_raised(
    prepare_config, poisoned, tmp_path, data_dir, small_parts, workers
):
    directory, _ = poisoned
    config = prepare_config(tmp_path / "data", input=(str(directory),), max_skipped_documents=4)
    with ThreadPoolExecutor(workers) as executor:
        with pytest.raises(InputError) as caught:
            build(config, executor)
        assert re.fullmatch(
            rf"5 documents cannot be read, max_skipped_documents allows 4; the first: {directory}/1.jsonl: line 1: "
            r"found the keys .*; mend them or raise max_skipped_documents, and run the same command again",
            str(caught.value),
        )
        spills = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "_work").glob("spill-*.npy")}
        assert len(spills) > 5
        done = [path.stat().st_mtime_ns for path in spills]
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("tf_bert.pretraining_data.build.save_tokenizer", interrupt)
            build(dataclasses.replace(config, max_skipped_documents=5), executor)
        assert [path.stat().st_mtime_ns for path in spills] == done, "pass 1 was done again"
        build(dataclasses.replace(config, max_skipped_documents=5), executor)
    assert shards_of(tmp_path / "data") == shards_of(data_dir)


def interrupt(*_):
    raise KeyboardInterrupt


def test_without_a_limit_the_first_such_document_ends_the_build(prepare_config, poisoned, tmp_path):
    with pytest.raises(
        InputError, match=r"1.jsonl: line 1: found the keys .* passed over: max_skipped_documents says how many$"
    ):
        build(prepare_config(tmp_path / "data", input=(str(poisoned[0]),)))


def test_text_in_parts_gives_the_bytes_of_text_in_one(prepare_config, tmp_path, data_dir, small_parts):
    config = prepare_config(tmp_path / "data")
    build(config)
    assert len(splits.split_files([Path(config.input[0])], config)) > 3
    assert files_of(tmp_path / "data") == files_of(data_dir)


def test_a_dump_is_counted_from_its_pages_on(prepare_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(splits, "LEAST_BYTES", 1000)
    words = "some words of an article which are many and go on"
    pages = [
        f"<page><title>{'Talk:' * (n % 3 == 0)}P{n}</title><ns>{int(n % 3 == 0)}</ns><revision><text>"
        f"{'' if n == 1 else f'Article {n}. {words}. {words[::-1]}.'}</text></revision></page>\n"
        for n in range(30)
    ]
    streams = ["<mediawiki>\n", *("".join(pages[n : n + 5]) for n in range(0, 30, 5)), "</mediawiki>\n"]
    path = tmp_path / "x-multistream.xml.bz2"
    path.write_bytes(b"".join(bz2.compress(stream.encode()) for stream in streams))
    manifest = build(prepare_config(tmp_path / "data", input=(str(path),), validation_fraction=0.2))
    assert (manifest.pages, manifest.articles, manifest.documents) == (30, 20, 19)
    assert manifest == read_manifest(tmp_path / "data")
    assert main(["inspect", str(tmp_path / "data")]) == 0
    shown = capsys.readouterr().out
    lines = ["  read                  30  pages", f"{20:>26}  articles", f"{19:>26}  documents", "  train "]
    assert "\n".join(lines) in shown  # nothing was left out or passed over


def test_what_was_passed_over_is_told(prepare_config, poisoned, tmp_path, capsys):
    directory, _ = poisoned
    config = prepare_config(tmp_path / "data")
    words = ["prepare", "--input", str(directory), "--vocab", config.vocab, "--output_dir", config.output_dir]
    words += ["--sentence_splitter", "line", "--max_seq_length", "64", "--max_skipped_documents", "7"]
    assert main(words) == 0
    first = f"{directory}/1.jsonl: line 1: found the keys ['title'], expected a string under \"text\""
    out = capsys.readouterr().out
    assert out.startswith(
        f"{config.output_dir}: 5 documents that cannot be read were passed over, the first: {first}\n"
    )
    assert main(["inspect", config.output_dir]) == 0
    shown = capsys.readouterr().out
    lines = [
        "  read                 300  documents",
        "  passed over            5  that could not be read",
        " " * 28 + first,
    ]
    assert "\n".join(lines) in shown
    assert shown.count(".jsonl: line ") == 5
