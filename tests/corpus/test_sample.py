"""A bounded sample: spread over the files, and the share of the corpus that it is."""

import pytest

from tf_bert.config import CorpusConfig
from tf_bert.corpus import sample as module
from tf_bert.corpus.reader import read_documents
from tf_bert.corpus.sample import CorpusSample
from tf_bert.errors import InputError


def write(directory, sizes):
    """Files of one kind of letter each, documents of 99 letters."""
    for number, size in enumerate(sizes):
        letters = chr(ord("a") + number % 26) * 99
        (directory / f"{number:03}.txt").write_text("\n\n".join([letters] * (size // 100)))
    return CorpusConfig(input=str(directory))


def test_a_corpus_that_fits_is_read_whole(wikipedia_dump):
    config = CorpusConfig(input=str(wikipedia_dump))
    sample = CorpusSample(config, max_bytes=100_000_000)
    steps = []
    assert list(sample.texts(steps.append)) == [document.text for document in read_documents(config)]
    assert sample.share == 1.0 and sum(steps) == wikipedia_dump.stat().st_size == sample.read_bytes


def test_a_small_sample_comes_from_every_file_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLICE_BYTES", 1000)
    config = write(tmp_path, [2_000_000, 1_000_000])
    sample = CorpusSample(config, max_bytes=31_000)
    text = "".join(sample.texts())
    assert len(text) <= 31_000
    assert text.count("a") == pytest.approx(21_000, rel=0.02) and text.count("b") == pytest.approx(10_000, rel=0.02)
    assert 0.01 < sample.share < 0.3  # blocks of 256 KiB of both files


def test_of_many_small_files_some_are_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLICE_BYTES", 20_000)
    config = write(tmp_path, [10_000] * 100)
    sample = CorpusSample(config, max_bytes=220_000)
    texts = list(sample.texts())
    assert sum(map(len, texts)) <= 220_000
    letters = "".join(texts)
    assert len(set(letters)) > 15  # files from the whole range
    assert sample.share == pytest.approx(0.21, abs=0.02)


def test_a_document_that_is_larger_than_the_sample_is_cut_between_characters(tmp_path):
    (tmp_path / "one.txt").write_text("é" * 1000, encoding="utf-8")
    assert list(CorpusSample(CorpusConfig(input=str(tmp_path)), max_bytes=101).texts()) == ["é" * 50]


def test_a_corpus_without_a_document_is_refused(tmp_path):
    (tmp_path / "blank.txt").write_text("\n\n \n")
    with pytest.raises(InputError, match=r"blank.txt: no document was found; check input and format"):
        list(CorpusSample(CorpusConfig(input=str(tmp_path / "blank.txt")), max_bytes=1000).texts())
