"""Documents that cannot be read: told, or passed over and noted, up to a limit; and what was counted meanwhile."""

import json
from pathlib import Path

import pytest

from tf_bert.cli import main
from tf_bert.config import CorpusConfig
from tf_bert.corpus import text, wikipedia
from tf_bert.corpus.read_report import ReadReport
from tf_bert.corpus.reader import read_documents
from tf_bert.errors import InputError

HOW = "; or have such documents passed over: max_skipped_documents says how many"


def read(path: Path, limit: int, **values) -> tuple[list[str], ReadReport]:
    config = CorpusConfig(input=str(path), max_skipped_documents=limit, **values)
    report = ReadReport(limit)
    return [document.text for document in read_documents(config, report=report)], report


def page(title: str, content: str, ns: int = 0) -> str:
    return f"<page><title>{title}</title><ns>{ns}</ns><revision><text>{content}</text></revision></page>\n"


JSON_LINES = [
    (b'{"text": "one"}', None),
    (b'{"text": ', "is not valid JSON (Expecting value at column 10); expected one object a line"),
    (b'["two"]', "found a JSON list, expected an object with text"),
    (b"", None),
    (b'{"title": "two"}', "found the keys ['title'], expected a string under \"text\""),
    (b'{"text": null}', 'text is a NoneType, expected a string under "text"'),
    (
        b'{"text": "\xff"}',
        "byte 0xff at column 11 is not UTF-8; convert the file, e.g. with iconv -t UTF-8",
    ),
    (b'{"text": "' + b"x" * 600_000 + b'"}', "found a line of more than 64 MiB, expected text; is it a binary file?"),
    (b'{"text": "two"}', None),
]


def test_lines_of_jsonl_are_passed_over_and_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MAX_DOCUMENT_BYTES", 300_000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in JSON_LINES))
    expected = [f"{path}: line {number}: {why}" for number, (_, why) in enumerate(JSON_LINES, 1) if why]
    texts, report = read(path, limit=6)
    assert texts == ["one", "two"] and report.documents == 2
    assert report.skipped == expected


@pytest.mark.parametrize("by_file", [False, True])
def test_texts_are_passed_over_whole_and_noted_once(tmp_path, monkeypatch, by_file):
    monkeypatch.setattr(text, "MAX_DOCUMENT_BYTES", 300_000)
    documents = [b"one", b"bad \xfe\nalso bad \xff\ngood", b"two\nlines", b"long enough " * 60_000, b"words\n" * 70_000]
    documents.append("drei für 東".encode())
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n\n".join(documents))
    if by_file:
        with pytest.raises(InputError, match=r"a.txt: no document was found"):
            read(path, limit=1, document_separator="file")
        return
    texts, report = read(path, limit=3)
    assert texts == ["one", "two\nlines", "drei für 東"]
    assert [note.split(",")[0].split(";")[0] for note in report.skipped] == [
        f"{path}: line 3: byte 0xfe at column 5 is not UTF-8",
        f"{path}: line 10: found a line of more than 64 MiB",
        f"{path}: line 12: found a document of more than 64 MiB",
    ]


def test_articles_are_passed_over_and_noted(tmp_path, monkeypatch):
    monkeypatch.setitem(wikipedia._MAX_LENGTHS, "text", 1000)
    to_plain_text = wikipedia.to_plain_text

    def convert(markup: str, dropped: list[str]) -> str:
        if "poison" in markup:
            raise RecursionError("maximum recursion\ndepth exceeded" + " " * 9)
        return to_plain_text(markup, dropped)

    monkeypatch.setattr(wikipedia, "to_plain_text", convert)
    pages = [
        page("One", "First."),
        page("Talk:One", "talk " * 1000, ns=1),  # no article, so it does not count
        page("Big", "words " * 1000),
        page("Odd", "poison"),
        page("Empty", ""),
        page("T" * 1025, "Text."),
        page("Two", "Second."),
    ]
    path = tmp_path / "a.xml"
    path.write_text(f"<mediawiki>\n{''.join(pages)}</mediawiki>")
    texts, report = read(path, limit=3)
    assert texts == ["First.", "Second."]
    assert (report.pages, report.articles, report.documents) == (7, 6, 2)
    assert report.skipped == [
        f'{path}: line 4, page "Big": its text has more than 1,000 characters; expected an article; take the page out',
        f'{path}: line 5, page "Odd": its markup cannot be made plain text (RecursionError: maximum recursion depth '
        "exceeded); take the page out",
        f"{path}: line 7: its title has more than 1,024 characters; expected an article; take the page out",
    ]


def test_the_first_such_document_is_an_error_unless_some_are_allowed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n1\n2\n3\n{"text": "two"}\n')
    first = f"{path}: line 2: found a JSON int, expected an object with text"
    with pytest.raises(InputError) as caught:
        read(path, limit=0)
    assert str(caught.value) == first + HOW
    with pytest.raises(InputError) as caught:
        read(path, limit=2)
    assert str(caught.value) == (
        f"3 documents cannot be read, max_skipped_documents allows 2; the first: {first}; mend them or raise "
        "max_skipped_documents, and run the same command again"
    )
    assert read(path, limit=3)[0] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", b"<mediawiki><page></pag></mediawiki>", "is not valid XML"),
        ("a.xml", b'<!DOCTYPE m [<!ENTITY a "x">]><mediawiki/>', "declares a DTD"),
        ("a.xml", b"<mediawiki><siteinfo>" + b"<a>" * 40, "nested more than 32 deep"),
        ("a.xml.bz2", b"BZh9" + bytes(50), "is not valid bz2"),
    ],
)
def test_files_that_are_damaged_are_never_passed_over(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name, limit=1000)


def test_reports_add_up_and_survive_json():
    total = ReadReport(max_skipped=1)
    for number in (1, 2):
        part = ReadReport(pages=10 * number, articles=3, documents=number, skipped=[f"place {number}"])
        part.dropped["too short"] += number
        total.add(ReadReport.from_json(json.loads(json.dumps(part.to_json()))))
    assert total == ReadReport(1, 30, 6, 3, {"too short": 3}, ["place 1", "place 2"])
    with pytest.raises(InputError, match=r"^2 documents cannot be read, max_skipped_documents allows 1; the first: pl"):
        total.check_skipped()


def test_training_and_reporting_on_a_vocabulary_pass_over_documents_too(tmp_path, capsys):
    path, vocab = tmp_path / "a.jsonl", tmp_path / "vocab.txt"
    path.write_text("".join(json.dumps({"text": f"some words number {n} repeat"}) + "\n" for n in range(50)) + "bad\n")
    train = ["vocab", "train", "--input", str(path), "--output", str(vocab), "--vocab_size", "60"]
    report = ["vocab", "report", "--input", str(path), "--vocab", str(vocab), "--output_png", "null"]
    assert main(train) == 1
    assert capsys.readouterr().err.endswith(
        f"line 51: is not valid JSON (Expecting value at column 1); expected one object a line{HOW}\n"
    )
    for words in (train, report):
        assert main([*words, "--max_skipped_documents", "1"]) == 0
        told = f"1 document that cannot be read was passed over: {path}: line 51: is not valid JSON"
        assert told in capsys.readouterr().out
