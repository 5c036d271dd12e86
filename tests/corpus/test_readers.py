"""Dumps, text and JSONL as documents; damage and danger as one line; bounded memory."""

import bz2
import contextlib
import itertools
import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tf_bert.config import CorpusConfig
from tf_bert.corpus import blocks, document
from tf_bert.corpus.blocks import Part
from tf_bert.corpus.read_report import ReadReport
from tf_bert.corpus.reader import list_input_files, read_documents, read_part
from tf_bert.corpus.sentences import SentenceSplitter
from tf_bert.errors import InputError, UsageError


def read(*inputs, **settings):
    return [d.text for d in read_documents(CorpusConfig(input=[str(path) for path in inputs], **settings))]


def dump(*pages, header="", namespace="http://www.mediawiki.org/xml/export-0.10/"):
    return f'<mediawiki xmlns="{namespace}">{header}{"".join(pages)}</mediawiki>'.encode()


def page(title, text, ns=0, extra=""):
    return f"<page><title>{title}</title><ns>{ns}</ns>{extra}<revision><text>{text}</text></revision></page>"


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


# --- what is read ------------------------------------------------------------------------------------------------


def test_articles_are_read_and_other_pages_are_not(write):
    content = dump(
        page("One", "First &amp;amp; best."),
        page("Talk:One", "Talk.", ns=1),
        page("Old", "#REDIRECT [[One]]", extra='<redirect title="One"/>'),
        page("Empty", ""),
        page("Two", "Second."),
    )
    assert read(write("a.xml", content)) == ["First & best.", "Second."]
    assert read(write("b.xml.bz2", bz2.compress(content))) == ["First & best.", "Second."]


def test_the_version_of_the_export_does_not_matter_and_its_names_of_namespaces_do(write):
    header = (
        '<siteinfo><namespaces><namespace key="6">Datei</namespace><namespace key="14">Kategorie</namespace>'
        '<namespace key="4">Wikipedia</namespace></namespaces></siteinfo>'
    )
    text = "[[Datei:x.jpg|mini|weg]]Bleibt. [[Wikipedia:Seite]] [[Kategorie:Weg]]"
    content = dump(page("Eins", text), header=header, namespace="http://www.mediawiki.org/xml/export-0.11/")
    assert read(write("de.xml", content)) == ["Bleibt. Wikipedia:Seite"]


def test_a_multistream_dump_is_read_to_its_end(write):
    content = dump(page("One", "First."), page("Two", "Second."))
    third = len(content) // 3
    streams = [content[:third], content[third : 2 * third], content[2 * third :]]
    path = write("multi.xml.bz2", b"".join(map(bz2.compress, streams)))
    assert read(path) == ["First.", "Second."]


def test_of_several_revisions_the_last_counts(write):
    revisions = "<revision><text>Old.</text></revision>"
    assert read(write("a.xml", dump(page("One", "New.", extra=revisions)))) == ["New."]


def test_redirects_and_namespaces_of_old_exports_are_known_without_their_elements(write):
    header = '<siteinfo><namespaces><namespace key="0"/><namespace key="1">Talk</namespace></namespaces></siteinfo>'
    pages = [
        page("Star Trek: One", "First."),
        page("Talk:One", "Talk."),
        page("Old", "\n#Redirect [[One]]"),
    ]
    content = dump(*pages, header=header).replace(b"<ns>0</ns>", b"")
    assert read(write("a.xml", content)) == ["First."]


def test_an_export_is_utf8_whatever_it_declares(write):
    content = b'<?xml version="1.0" encoding="no-such"?>' + dump(page("One", "Caf\u00e9."))
    assert read(write("a.xml", content)) == ["Caf\u00e9."]


def test_text_is_cut_at_blank_lines_or_taken_by_file(write):
    path = write("a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n\r\n \r\nthree\r\n")
    assert read(path) == ["one\ntwo", "three"]
    assert read(path, document_separator="file") == ["one\ntwo\nthree"]
    assert read(write("b.txt.bz2", bz2.compress(b"packed\n\ntext"))) == ["packed", "text"]


def test_documents_know_where_they_come_from(write):
    text, lines = write("a.txt", "one\n\n\ntwo"), write("b.jsonl", '{"text": "x"}\n\n{"text": "y"}\n')
    xml = write("c.xml", dump(page("One", "First.")))
    found = read_documents(CorpusConfig(input=[str(text), str(lines), str(xml)]))
    assert [(d.source, d.location) for d in found] == [
        (str(text), "line 1"),
        (str(text), "line 4"),
        (str(lines), "line 1"),
        (str(lines), "line 3"),
        (str(xml), 'page "One"'),
    ]


def test_documents_are_told_of_before_they_are_read(write):
    text, lines = write("a.txt", "one\nmore\n\n\ntwo"), write("b.jsonl", '{"text": "x"}\n\n{"text": 3}\n')
    xml = write("c.xml", dump(page("One", "First."), page("Talk", "Not an article.", ns=1)))
    told: list[str] = []
    for path in (text, lines, xml):
        with contextlib.suppress(InputError):  # of the line without a text, which was told of, too
            for found in read_part(
                blocks.Part(path), CorpusConfig(input=str(path)), ReadReport(), on_document=told.append
            ):
                told.append(f"read {found.location}")
    assert told == [
        *("line 1", "read line 1", "line 5", "read line 5"),
        *("line 1", "read line 1", "line 3"),
        *('page "One"', 'page "Talk"', 'read page "One"'),
    ]


def test_jsonl_reads_text_and_leaves_the_rest(write):
    records = [{"text": "one\ntwo", "id": 1}, {"text": " "}, {"text": "half a pair: \ud83d."}]
    path = write("a.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    assert read(path) == ["one\ntwo", "half a pair: \ufffd."]


@pytest.mark.parametrize("name", ["a.xml", "a.xml.bz2", "enwiki-pages-articles1.xml-p10p302.bz2"])
def test_dumps_are_known_by_their_names_however_they_are_split(write, name):
    content = dump(page("One", "'''First'''."))
    assert read(write(name, bz2.compress(content) if name.endswith("bz2") else content)) == ["First."]


def test_files_directories_and_globs_are_each_read_once_in_order(write, tmp_path):
    for name in ("b/2.txt", "b/deep/3.txt", "a.txt", "b/.hidden/4.txt", "b/.5.txt", "b/6.txt.partial"):
        write(name, f"text of {name}")
    inputs = [str(tmp_path / "b"), str(tmp_path / "*.txt"), str(tmp_path / "b" / "2.txt")]
    found = list_input_files(CorpusConfig(input=inputs))
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.txt", "b/2.txt", "b/deep/3.txt"]


def test_progress_adds_up_to_the_size_of_the_files(write, wikipedia_dump):
    seen = []
    documents = list(read_documents(CorpusConfig(input=str(wikipedia_dump)), seen.append))
    assert len(documents) == 106 and sum(seen) == wikipedia_dump.stat().st_size


def test_memory_does_not_grow_with_the_dump(write):
    def peak(pages):
        path = write(
            f"{pages}.xml.bz2", bz2.compress(dump(*(page(f"P{i}", f"Text {i}. " * 2000) for i in range(pages))))
        )
        config = CorpusConfig(input=str(path))
        for _ in read_documents(config):  # imports and caches
            break
        tracemalloc.start()
        count = sum(1 for _ in read_documents(config))
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == pages
        return highest

    small, large = peak(50), peak(1000)
    assert large < 1.2 * small


# --- what is refused ---------------------------------------------------------------------------------------------

ARTICLES = dump(*(page(f"Page {i}", f"Text number {i}. " * 50) for i in range(300)))
PACKED = bz2.compress(ARTICLES)
CUT = ARTICLES[: len(ARTICLES) // 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", r"empty.txt: is empty, expected text; remove it"),
        ("blank.txt", b" \n\n", r"blank.txt: no document was found; check input and format"),
        ("cut.xml", CUT, r'cut.xml: is cut off at line 1, page "Page \d+": <\w+> is not closed; download it'),
        ("cut.xml.bz2", PACKED[: len(PACKED) // 2], r"cut.xml.bz2: is cut off: its bz2 stream does not end; download"),
        ("cut2.xml.bz2", bz2.compress(CUT), r'cut2.xml.bz2: is cut off at line 1, page "Page \d+"'),
        ("bad.xml.bz2", b"BZh9" + b"\x00" * 50, r"bad.xml.bz2: is not valid bz2 near byte \d+; download or compress"),
        ("no.xml.bz2", ARTICLES, r"no.xml.bz2: is not valid bz2 near byte 0"),
        ("flip.xml.bz2", PACKED[:90] + b"\xff" + PACKED[91:], r"flip.xml.bz2: is not valid bz2 near byte \d+"),
        ("tail.xml.bz2", PACKED + b"rubbish", r"tail.xml.bz2: is (not valid bz2 near|cut off)"),
        (
            "dtd.xml",
            b'<!DOCTYPE m [<!ENTITY a "x">]><mediawiki/>',
            r"dtd.xml: line 1: declares a DTD or an entity \(m\)",
        ),
        ("html.xml", b"<html><p>x</p></html>", r"html.xml: its root is <html>, expected <mediawiki>"),
        ("blank.xml", b" \n", r"blank.xml: line 2: is empty or holds no whole XML \(no element found\)"),
        (
            "tail.xml",
            dump(page("One", "x")) + b"<!-- cut off",
            r"tail.xml: line 1: is empty or holds no whole XML \(unclosed token\); expected a MediaWiki export",
        ),
        (
            "deep.xml",
            b"<mediawiki>" + b"<a>" * 40,
            r"deep.xml: line 1: elements are nested more than 32 deep; expected a MediaWiki export",
        ),
        (
            "title.xml",
            dump(page("long " * 1000, "x")),
            r"title.xml: line 1: its title has more than 1,024 characters; expected an article; take the page out",
        ),
        ("x.jsonl.gz", b"\x1f\x8b\x08", r"x.jsonl.gz: is compressed as .gz; expected plain or .bz2 .* decompress it"),
        ("bad.xml", b"<mediawiki><page></pag></mediawiki>", r"bad.xml: line 1: is not valid XML .*mismatched tag"),
        (
            "byte.xml",
            dump(page("One", "x")).replace(b">x<", b">\xe9t\xe9<"),
            r'byte.xml: line 1, page "One": .*not UTF-8',
        ),
        ("byte.txt", b"one\ntwo \xff three\n", r"byte.txt: line 2: byte 0xff at column 5 is not UTF-8; .*iconv"),
        ("byte.jsonl", b'{"text": "\xff"}\n', r"byte.jsonl: line 1: byte 0xff at column 11 is not UTF-8"),
        (
            "bad.jsonl",
            b'{"text": "a"}\n{"text": \n',
            r"bad.jsonl: line 2: is not valid JSON \(Expecting value at column 10\); expected one object a line",
        ),
        ("list.jsonl", b'["a"]\n', r"list.jsonl: line 1: found a JSON list, expected an object with text"),
        (
            "key.jsonl",
            b'{"txt": "a"}\n',
            r"key.jsonl: line 1: found the keys \['txt'\], expected a string under \"text\"",
        ),
        ("type.jsonl", b'{"text": 3}\n', r"type.jsonl: line 1: text is a int, expected a string"),
        ("deep.jsonl", b'{"text": ' + b"[" * 200_000 + b"\n", r"deep.jsonl: line 1: is not valid JSON"),
    ],
)
def test_damage_and_danger_are_one_line(write, name, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(write(name, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.txt", r"absent.txt: no such file or directory, and no file matches it; check input"),
        ("*.nothing", r"\*.nothing: no such file or directory, and no file matches it"),
        ("folder", r"folder: is a directory without files, expected a corpus"),
    ],
)
def test_missing_input_is_named(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


def test_a_decompression_bomb_is_refused_before_it_is_held(write):
    bomb = bz2.compress(b"a" * 300_000_000)
    assert len(bomb) < 1000
    path = write("bomb.txt.bz2", bomb)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"bomb.txt.bz2: expands to more than 1000 times its size"):
        sum(len(block) for block in blocks.read_blocks(blocks.Part(path)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("opening", [b'<mediawiki a="', b"<mediawiki><!--", b"<mediawiki><?a ", b"<"])
def test_a_tag_without_end_is_refused_before_it_is_held(write, opening):
    path = write("tag.xml.bz2", bz2.compress(opening + b"x" * 12_000_000))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"tag.xml.bz2: line 1: found a tag or comment of more than 1,048,576 bytes"):
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000


def test_what_would_have_to_be_held_whole_has_a_limit(write, monkeypatch):
    monkeypatch.setattr("tf_bert.corpus.text.MAX_DOCUMENT_BYTES", 1 << 20)
    monkeypatch.setattr("tf_bert.corpus.text._LIMIT", "1 MiB")
    big = "word " * 300_000
    assert len(big) < document.MAX_DOCUMENT_BYTES
    with pytest.raises(InputError, match=r'big.xml: line 1, page "Big": its text has more than 8,388,608 characters'):
        read(write("big.xml", dump(page("Big", "words " * 1_400_000))))
    with pytest.raises(
        InputError, match=r"line.txt: line 1: found a line of more than 1 MiB, expected text; is it a binary"
    ):
        read(write("line.txt", big))
    with pytest.raises(InputError, match=r"doc.txt: line 1: found a document of more than 1 MiB.*with blank lines"):
        read(write("doc.txt", "some words\n" * 150_000))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("ab \n\r\t\u3000\x85\xa0\x1c\u00e9\ufeff", max_size=60), st.booleans())
def test_documents_of_a_text_are_those_found_line_by_line(write, text, by_file):
    lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
    expected = [
        "\n".join(document)
        for has_text, document in itertools.groupby(lines, lambda line: bool(line.strip()))
        if has_text
    ]
    if by_file and expected:
        expected = ["\n".join(expected)]
    path = write("a.txt", text or "\n")
    config = CorpusConfig(input=str(path), document_separator="file" if by_file else "blank_line")
    assert [document.text for document in read_part(Part(path), config, ReadReport())] == expected


# --- sentences ---------------------------------------------------------------------------------------------------


def test_sentences_end_where_punkt_says_and_at_line_breaks():
    splitter = SentenceSplitter(CorpusConfig(input="x"))
    text = "Dr. Smith went home at 5 p.m. on Monday. He slept.\nHeading\n\nIt cost $3.50. Really? Yes!"
    assert splitter.split(text) == [
        "Dr. Smith went home at 5 p.m. on Monday.",
        "He slept.",
        "Heading",
        "It cost $3.50.",
        "Really?",
        "Yes!",
    ]


def test_the_language_is_chosen_by_its_name():
    german = "Das gilt z.B. für Dr. Müller. Er kam am 3. Mai an."
    splitter = SentenceSplitter(CorpusConfig(input="x", language="german"))
    assert splitter.split(german) == ["Das gilt z.B. für Dr. Müller.", "Er kam am 3. Mai an."]


def test_a_sentence_a_line_is_respected():
    splitter = SentenceSplitter(CorpusConfig(input="x", sentence_splitter="line"))
    assert splitter.split("One. Two.\n\n Three \n") == ["One. Two.", "Three"]


def test_an_unknown_language_is_named_with_the_nearest():
    with pytest.raises(UsageError, match=r"language: found 'Germn', .* did you mean 'german'\?"):
        SentenceSplitter(CorpusConfig(input="x", language="Germn"))
    with pytest.raises(UsageError, match=r"language: found 'klingon', .* known: czech, danish"):
        SentenceSplitter(CorpusConfig(input="x", language="klingon"))
