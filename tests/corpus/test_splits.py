"""Files cut into parts: the documents of the parts, one after the other, are those of the file, wherever it is cut."""

import bz2
import itertools
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tf_bert.config import CorpusConfig
from tf_bert.corpus import splits
from tf_bert.corpus.blocks import Part
from tf_bert.corpus.document import Document
from tf_bert.corpus.read_report import ReadReport
from tf_bert.corpus.reader import list_input_files, read_documents, read_part
from tf_bert.corpus.splits import split_files
from tf_bert.errors import InputError

MANY = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def config_of(*inputs: Path, **values) -> CorpusConfig:
    return CorpusConfig(input=[str(path) for path in inputs], **values)


def cut(config: CorpusConfig, part_bytes: int) -> list[list[Part]]:
    """The groups of a corpus for parts of another size than its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "LEAST_BYTES", part_bytes)
        patch.setattr(splits, "MOST_BYTES", part_bytes)
        return split_files(list_input_files(config), config)


def parts_of(config: CorpusConfig, part_bytes: int) -> list[Part]:
    return [part for group in cut(config, part_bytes) for part in group]


def read(parts: list[Part], config: CorpusConfig, report: ReadReport | None = None) -> list[str]:
    report = report or ReadReport()
    return [document.text for part in parts for document in read_part(part, config, report)]


def assert_parts_cover(parts: list[Part], path: Path) -> None:
    assert [part.start for part in parts] == [0, *(part.end for part in parts[:-1])] and parts[-1].end is None
    assert sum(part.size for part in parts) == path.stat().st_size and all(part.size for part in parts)


# --- dumps -------------------------------------------------------------------------------------------------------


def pack(xml: bytes, pages: int) -> tuple[bytes, list[int]]:
    """A multistream dump as Wikimedia makes them: a stream for the head, one for so many pages, one for the foot.

    Returns:
      The bytes, and where the streams of pages begin.
    """
    head, *found = re.split(rb"(?=  <page>\n)", xml)
    found[-1], foot = found[-1].split(b"</mediawiki>")
    streams = [head, *(b"".join(found[i : i + pages]) for i in range(0, len(found), pages)), b"</mediawiki>" + foot]
    packed = [bz2.compress(stream) for stream in streams]
    offsets = [sum(map(len, packed[: i + 1])) for i in range(len(packed) - 2)]
    return b"".join(packed), offsets


@pytest.fixture(scope="module")
def excerpt(wikipedia_dump) -> bytes:
    return bz2.decompress(wikipedia_dump.read_bytes())


@pytest.fixture(scope="module")
def documents(wikipedia_dump) -> list[Document]:
    found = list(read_documents(config_of(wikipedia_dump)))
    assert len(found) == 106
    return found


@pytest.fixture(scope="module")
def multistream(excerpt, tmp_path_factory) -> tuple[Path, list[int]]:
    """The real excerpt with 10 pages a stream, in a directory with its index, and where the streams begin."""
    content, offsets = pack(excerpt, 10)
    directory = tmp_path_factory.mktemp("multistream")
    path = directory / "enwiki-20260101-pages-articles-multistream.xml.bz2"
    path.write_bytes(content)
    lines = [f"{offset}:{number}:Title: {number}" for offset in offsets for number in range(10)]
    (directory / "enwiki-20260101-pages-articles-multistream-index.txt.bz2").write_bytes(
        bz2.compress("\n".join(lines).encode())
    )
    return path, offsets


@pytest.mark.parametrize("has_index", [True, False])
def test_a_multistream_dump_is_cut_between_its_streams(excerpt, documents, tmp_path, has_index):
    content, offsets = pack(excerpt, 100)
    path = tmp_path / "enwiki-20260101-pages-articles-multistream.xml.bz2"
    path.write_bytes(content)
    if has_index:
        lines = "".join(f"{offset}:{page}:Page {page}\n" for offset in offsets for page in range(100))
        index = tmp_path / "enwiki-20260101-pages-articles-multistream-index.txt.bz2"
        index.write_bytes(bz2.compress(lines.encode()))
    config = config_of(tmp_path)
    parts = parts_of(config, 1)
    assert [part.start for part in parts] == [0, *offsets] and len(offsets) == 3
    assert_parts_cover(parts, path)
    report = ReadReport()
    found = [document for part in parts for document in read_part(part, config, report)]
    assert [(d.text, d.location) for d in found] == [(d.text, d.location) for d in documents]
    assert (report.pages, report.articles, report.documents) == (206, 106, 106)


@pytest.mark.parametrize("part_bytes", [1, 100_000, 400_000, 1_000_000])
def test_parts_of_a_dump_have_the_size_asked_for(multistream, documents, part_bytes):
    path, offsets = multistream
    config = config_of(path)
    parts = parts_of(config, part_bytes)
    assert {part.start for part in parts[1:]} <= set(offsets)
    assert_parts_cover(parts, path)
    largest_stream = max(b - a for a, b in itertools.pairwise(offsets))
    assert all(part_bytes <= part.size <= part_bytes + largest_stream for part in parts[:-1])
    assert read(parts, config) == [document.text for document in documents]


def test_the_size_of_parts_is_a_function_of_the_corpus(multistream, tmp_path):
    path, _ = multistream
    config = config_of(path)
    assert split_files([path], config) == [[Part(path)]]  # too small to be worth it
    (tmp_path / "big.txt").touch()
    os.truncate(tmp_path / "big.txt", 10 << 30)
    assert split_files([path, tmp_path / "big.txt"], config) == [[Part(path), Part(tmp_path / "big.txt")]]


def test_every_part_of_a_dump_knows_the_namespaces_of_its_head(tmp_path):
    head = (
        '<mediawiki xml:lang="de">\n  <siteinfo><namespaces><namespace key="6">Datei</namespace>'
        '<namespace key="1">Diskussion</namespace></namespaces></siteinfo>\n'
    )
    page = "  <page>\n<title>{}{}</title><revision><text>[[Datei:x.jpg|mini|weg]]Bleibt {}.</text></revision></page>\n"
    pages = "".join(page.format("Diskussion:" if number % 3 else "", number, number) for number in range(30))
    path = tmp_path / "de.xml.bz2"
    path.write_bytes(pack(f"{head}{pages}</mediawiki>\n".encode(), 2)[0])
    config = config_of(path)
    parts = parts_of(config, 1)
    assert len(parts) == 16
    assert read(parts, config) == [f"Bleibt {number}." for number in range(0, 30, 3)]


def test_a_dump_that_was_not_made_to_be_cut_is_left_whole(excerpt, documents, tmp_path):
    """Parallel compressors such as pbzip2 begin a stream anywhere."""
    single, cut_anywhere = tmp_path / "single.xml.bz2", tmp_path / "parallel.xml.bz2"
    single.write_bytes(bz2.compress(excerpt))
    streams = [bz2.compress(excerpt[i : i + 300_000]) for i in range(0, len(excerpt), 300_000)]
    cut_anywhere.write_bytes(b"".join(streams))
    for path in (single, cut_anywhere):
        assert parts_of(config_of(path), 1000) == [Part(path)]
    assert read([Part(cut_anywhere)], config_of(cut_anywhere)) == [document.text for document in documents]


@pytest.mark.parametrize("chance", [b"BZh91AY&SY" + bytes(100), b"BZh51AY&SY" + b"\xff" * 3000, b"BZh11AY&SY"])
def test_what_looks_like_a_stream_by_chance_is_passed_over(multistream, tmp_path, chance):
    path, offsets = multistream
    content = path.read_bytes()
    at = offsets[2] - 5000
    (tmp_path / "chance.xml.bz2").write_bytes(content[:at] + chance + content[at + len(chance) :])
    assert splits._next_stream(tmp_path / "chance.xml.bz2", at) == offsets[2]


def test_however_many_places_look_like_a_stream_the_cuts_are_the_same(multistream, monkeypatch):
    path, _ = multistream
    parts = parts_of(config_of(path), 100_000)
    monkeypatch.setattr(splits, "_STREAM", re.compile(b"B"))
    assert parts_of(config_of(path), 100_000) == parts and len(parts) > 5


def test_a_stream_is_found_wherever_the_blocks_that_are_read_meet(multistream, tmp_path, monkeypatch):
    path, offsets = multistream
    for size in range(40, 60):
        monkeypatch.setattr(splits, "BLOCK_BYTES", size)
        assert splits._next_stream(path, offsets[3] - 500) == offsets[3]
    assert splits._next_stream(path, offsets[3]) == offsets[3]
    monkeypatch.setattr(splits, "_SEARCHED_BYTES", 1000)
    assert splits._next_stream(path, offsets[3] - 5000) is None


@given(part_bytes=st.integers(1, 400))
@MANY
def test_a_plain_dump_is_cut_at_its_pages(tmp_path, part_bytes):
    page = "<page>{0}<title>Page {1}</title>{0}<text>&lt;page&gt; Text {1} 東京 ü.</text>{0}</page>{0}"
    pages = "".join(page.format("\r\n" if number % 2 else "", number) for number in range(12))
    path = tmp_path / "a.xml"
    path.write_bytes(f"<mediawiki>\n{pages}</mediawiki>".encode())
    config = config_of(path)
    parts = parts_of(config, part_bytes)
    assert_parts_cover(parts, path)
    assert len(parts) > 5 or part_bytes > 100
    assert read(parts, config) == [f"Text {number} 東京 ü." for number in range(12)]


def test_the_real_dump_is_cut_at_its_pages(excerpt, documents, tmp_path):
    path = tmp_path / "a.xml"
    path.write_bytes(excerpt)
    parts = parts_of(config_of(path), 500_000)
    assert len(parts) == 11
    assert read(parts, config_of(path)) == [document.text for document in documents]


@pytest.mark.parametrize(
    "inside", ["<!-- {} -->", "<revision><text><![CDATA[ {} ]]></text></revision>"], ids=["comment", "CDATA"]
)
def test_a_page_that_is_none_is_an_error_and_not_an_article(tmp_path, inside):
    hidden = inside.format("<page><title>No page</title><revision><text>None.</text></revision></page>" * 9)
    real = "<page><title>A page</title><revision><text>Text.</text></revision></page>"
    path = tmp_path / "a.xml"
    path.write_text(f"<mediawiki>{real}<page><title>Odd</title>{hidden}</page>{real}</mediawiki>")
    config = config_of(path)
    assert read([Part(path)], config)[0] == "Text."
    with pytest.raises(
        InputError, match=r"a.xml: the <page> at or behind byte \d+, from which it was to be read in parallel, is insi"
    ):
        read(parts_of(config, 300), config)


# --- text and JSONL ----------------------------------------------------------------------------------------------

BLANKS = st.sampled_from(["\n\n", "\r\n\r\n", "\n \t\n", "\n\n\n\n", "\n\u3000\n", "\r\n\x85\r\n", "\n\xa0\n\n"])
LINES = st.text(st.sampled_from("ab ü東𝔘\u3000\ufeff\r\t"), max_size=12)
ENDS = st.sampled_from(["\n", "\r\n"])


@given(
    texts=st.lists(st.tuples(LINES, st.one_of(BLANKS, ENDS)), min_size=1, max_size=40),
    starts_with_mark=st.booleans(),
    part_bytes=st.integers(1, 60),
)
@example([("a", "\n\n"), ("\ufeffb", "\n\n"), ("c" * 20, "\n\n")], True, 2)
@MANY
def test_text_is_cut_behind_blank_lines(tmp_path, texts, starts_with_mark, part_bytes):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" * starts_with_mark + ("".join(map("".join, texts)) + "end").encode())
    config = config_of(path)
    parts = parts_of(config, part_bytes)
    assert_parts_cover(parts, path)
    assert read(parts, config) == read([Part(path)], config)


@given(
    texts=st.lists(st.text(st.sampled_from('aü東𝔘"\n\u2028\r'), min_size=1, max_size=9), min_size=1, max_size=30),
    end=ENDS,
    starts_with_mark=st.booleans(),
    ends_with_line_end=st.booleans(),
    part_bytes=st.integers(1, 80),
)
@MANY
def test_jsonl_is_cut_at_lines(tmp_path, texts, end, starts_with_mark, ends_with_line_end, part_bytes):
    lines = [json.dumps({"text": f"x{text}"}, ensure_ascii=False) + " " * (len(text) % 3) for text in texts]
    content = end.join(lines) + end * ends_with_line_end
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * starts_with_mark + content.encode())
    config = config_of(path)
    parts = parts_of(config, part_bytes)
    assert_parts_cover(parts, path)
    assert read(parts, config) == [f"x{text}" for text in texts]
    assert len(parts) >= min(len(texts) // 8, len(content) // (part_bytes + 80))


def test_parts_of_text_are_about_as_large_as_asked_for(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(f"{number:09}" for number in range(10_000)))  # 11 bytes each
    parts = parts_of(config_of(path), 10_000)
    assert len(parts) == 11
    assert all(10_000 <= part.size <= 10_020 for part in parts[:-1]) and 5_000 <= parts[-1].size <= 15_000


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.txt", {"document_separator": "file"}),
        ("a.txt.bz2", {}),
        ("a.jsonl.bz2", {}),
        ("a.jsonl", {"format": "text"}),
    ],
)
def test_what_cannot_be_cut_is_one_part(tmp_path, name, values):
    content = b'{"text": "one"}\n' * 1000
    (tmp_path / name).write_bytes(bz2.compress(content) if name.endswith("bz2") else content)
    assert parts_of(config_of(tmp_path / name, **values), 10) == [Part(tmp_path / name)]


def test_small_files_are_put_together_and_large_ones_cut_in_order(tmp_path):
    for index, size in enumerate((60, 30, 20, 330, 1, 4, 99)):
        (tmp_path / f"{index}.jsonl").write_bytes((b"x" * 9 + b"\n") * (size // 10) + b"x" * (size % 10))
    groups = cut(config_of(tmp_path), 100)
    assert [[(part.path.stem, part.start, part.size) for part in group] for group in groups] == [
        [("0", 0, 60), ("1", 0, 30), ("2", 0, 20)],
        [("3", 0, 110)],
        [("3", 110, 110)],
        [("3", 220, 110)],
        [("4", 0, 1), ("5", 0, 4), ("6", 0, 99)],
    ]


# --- what users see of it ----------------------------------------------------------------------------------------


def test_messages_of_later_parts_lead_to_the_place_in_the_file(tmp_path):
    lines = [f'{{"text": "line {number}"}}\n'.encode() for number in range(1, 41)]
    lines[34] = b"no JSON\n"
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(lines))
    config = config_of(path)
    parts = parts_of(config, 200)
    assert len(parts) > 2
    with pytest.raises(InputError, match=r"a.jsonl: line (\d+) after byte (\d+): is not valid JSON") as caught:
        read(parts, config)
    line, start = map(int, re.search(r"line (\d+) after byte (\d+)", str(caught.value)).groups())
    assert path.read_bytes()[start:].split(b"\n")[line - 1] == b"no JSON"


def test_messages_of_later_parts_of_a_dump_name_line(excerpt, tmp_path):
    content, _ = pack(excerpt.replace(b"<title>Albedo</title>", b"<title>Albedo</tit>"), 10)
    path = tmp_path / "bad.xml.bz2"
    path.write_bytes(content)
    config = config_of(path)
    parts = parts_of(config, 1)
    with pytest.raises(InputError, match=r"bad.xml.bz2: line (\d+) after byte [\d,]+: is not valid XML") as caught:
        read(parts, config)
    line, start = re.search(r"line (\d+) after byte ([\d,]+)", str(caught.value)).groups()
    (part,) = (part for part in parts if part.start == int(start.replace(",", "")))
    stream = bz2.BZ2Decompressor().decompress(content[part.start :])
    assert b"Albedo</tit>" in stream.split(b"\n")[int(line) - 1]


def test_indices_of_dumps_are_no_corpora_unless_they_are_named(tmp_path):
    names = [
        "enwiki-20260101-pages-articles-multistream-index.txt.bz2",
        "enwiki-20260101-pages-articles-multistream-index1.txt-p1p41242.bz2",
        "enwiki-20260101-pages-articles-multistream1.xml-p1p41242.bz2",
    ]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in list_input_files(config_of(tmp_path))] == names[2:]
    assert [path.name for path in list_input_files(config_of(tmp_path / "*.bz2"))] == names[2:]
    assert [path.name for path in list_input_files(config_of(tmp_path / names[0]))] == names[:1]
    (tmp_path / names[2]).unlink()
    for only_indices in (tmp_path, tmp_path / "*"):
        with pytest.raises(InputError, match=r"is a directory without files|no file matches it"):
            list_input_files(config_of(only_indices))
