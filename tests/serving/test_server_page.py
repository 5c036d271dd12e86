"""The page at /, as a person uses it: in a real browser."""

import re
import shutil

import pytest
from local_servers import running
from playwright.sync_api import expect, sync_playwright
from standin_exports import write_export

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is missing")
EVERYTHING = ("multilabel", "regression", "embed", "fill_mask", "answer", "entities", "tokens", "examples")
PATIENCE = 60_000  # ms


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        # Root, as in a container, has no sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    export_dir = write_export(tmp_path_factory.mktemp("exports") / "standin", 7, names=EVERYTHING)
    with running(export_dir, max_text_bytes=5000) as server:
        yield server


def open_page(browser, server, **options):
    """A page, and what it asked the network for and told its console."""
    page = browser.new_page(viewport={"width": 900, "height": 800}, **options)
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    asked, told = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(server.url)
    expect(page.locator("#version")).to_have_text("version 7")
    return page, asked, told


@pytest.fixture
def page(browser, server):
    page, asked, told = open_page(browser, server)
    yield page
    page.close()
    assert all(url.startswith((server.url, "data:")) for url in asked)  # nothing from elsewhere
    assert told == []


def ask(page, **texts):
    for name, text in texts.items():
        page.locator(f"textarea[name={name}]").fill(text)
    page.get_by_role("button", name="Ask", exact=True).click()


def bars(page):
    """Name, percentage, and width as a share of the track, of every bar."""
    page.locator("#answer .row").first.wait_for()
    return [
        (
            row.locator(".name").inner_text(),
            row.locator(".number").inner_text(),
            row.evaluate("row => row.querySelector('.fill').offsetWidth / row.querySelector('.track').offsetWidth"),
        )
        for row in page.locator("#answer .row").all()
    ]


def choose(page, title):
    page.get_by_role("button", name=title, exact=True).click()


def save_picture(page, tmp_path, name):
    path = tmp_path / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 5000


def test_it_says_what_it_is(page):
    assert page.title() == "standin - tf_bert"
    expect(page.locator("h1")).to_contain_text("standin")
    expect(page.locator(".note")).to_have_text(
        "A small server for trying out. In production, TensorFlow Serving answers the same requests."
    )
    expect(page.locator("#tasks button")).to_have_text(
        ["Classify", "Answer a question", "Embed", "Find entities", "Fill in [MASK]", "Find labels", "Score"]
    )


def test_classes_are_bars_with_the_best_first(page, tmp_path):
    ask(page, text="a" * 30)
    expect(page.locator("#answer .headline")).to_have_text("long")
    found = bars(page)
    assert [bar[:2] for bar in found] == [("long", "75.0%"), ("short", "25.0%")]
    assert [bar[2] for bar in found] == pytest.approx([0.75, 0.25], abs=0.01)
    expect(page.locator("#answer .row.best .name")).to_have_text("long")
    save_picture(page, tmp_path, "classes")
    ask(page, text="")
    expect(page.locator("#answer .headline")).to_have_text("short")
    assert [bar[:2] for bar in bars(page)] == [("short", "100.0%"), ("long", "0.0%")]


def test_the_request_is_shown_and_can_be_copied(page, server):
    ask(page, text='quotes " and <b>')
    page.get_by_text("The request and its answer").click()
    shown = page.locator("#raw").inner_text()
    assert shown.startswith("POST /v1/models/standin:predict\n")
    body = shown.splitlines()[1]
    with server.client() as client:
        answer = client.post("/v1/models/standin:predict", content=body)
    assert answer.status_code == 200 and answer.text in shown


def test_ctrl_enter_asks(page):
    page.locator("textarea").fill("a" * 30)
    page.locator("textarea").press("Control+Enter")
    expect(page.locator("#answer .headline")).to_have_text("long")


def test_several_labels(page):
    choose(page, "Find labels")
    ask(page, text="apple")
    expect(page.locator("#answer .headline")).to_have_text("a, e")
    assert [bar[:2] for bar in bars(page)] == [("a", "90.0%"), ("e", "90.0%"), ("o", "10.0%")]
    assert page.locator("#answer .row.best").count() == 2
    ask(page, text="xyz")
    expect(page.locator("#answer .headline")).to_have_text("No label")


def test_a_number(page):
    choose(page, "Score")
    ask(page, text="abcdefg")
    expect(page.locator("#answer .headline")).to_have_text("1.75")


def test_masks(page, tmp_path):
    choose(page, "Fill in [MASK]")
    ask(page, text="the [MASK] by the [MASK]")
    expect(page.locator("#answer h2")).to_have_text(["[MASK] 1", "[MASK] 2"])
    assert [bar[:2] for bar in bars(page)][:3] == [("river", "50.0%"), ("stone", "20.0%"), ("bank", "15.0%")]
    assert len(bars(page)) == 10
    save_picture(page, tmp_path, "masks")
    ask(page, text="no mask")
    expect(page.locator("#answer .headline")).to_have_text("Write [MASK] where a word is to be guessed")


def test_an_answer_is_marked_in_its_context(page, tmp_path):
    choose(page, "Answer a question")
    context = "Die 🐻🐻Bären liefen. " * 8
    ask(page, question="Wer lief?", context=context)
    expect(page.locator("#answer .headline")).to_have_text("🐻🐻Bären")
    expect(page.locator("#answer mark")).to_have_text("🐻🐻Bären")  # although characters outside of 16 bits are before
    assert page.locator("#answer .text").inner_text().strip() == context.strip()
    assert [bar[:2] for bar in bars(page)] == [
        ("🐻🐻Bären", "70.0%"),
        ("Die", "20.0%"),
        ("No answer in this text", "10.0%"),
    ]
    save_picture(page, tmp_path, "answer")
    ask(page, question="Wer?", context="Niemand")
    expect(page.locator("#answer .headline")).to_have_text("No answer in this text")
    expect(page.locator("#answer .text")).to_have_text("Niemand")
    assert page.locator("#answer mark").count() == 0


def test_entities_are_marked_with_their_types(page, tmp_path):
    choose(page, "Find entities")
    text = "😀 Anna und Zoë fuhren nach Oslo ."
    ask(page, text=text)
    expect(page.locator("#answer .headline")).to_have_text("3 entities")
    marks = page.locator("#answer mark").all()
    assert [mark.evaluate("mark => mark.firstChild.textContent") for mark in marks] == ["Anna", "Zoë", "Oslo"]
    assert [mark.locator("small").inner_text() for mark in marks] == ["PER", "LOC", "LOC"]
    without_types = re.sub(r"(PER|LOC)", "", page.locator("#answer .text").inner_text())
    assert without_types.split() == text.split()
    save_picture(page, tmp_path, "entities")


def test_vectors(page):
    choose(page, "Embed")
    ask(page, text="abcd")
    expect(page.locator("#answer .headline")).to_have_text("4 numbers")
    expect(page.locator("#answer pre")).to_have_text("4, 2, -4, 0, ...")


def test_what_is_typed_is_never_markup(page):
    hostile = "<img src=x onerror=document.title='taken'> </script><script>document.title='taken'</script>"
    choose(page, "Answer a question")
    ask(page, question=hostile, context=f"x {hostile}")
    expect(page.locator("#answer mark")).to_have_text("<img")
    choose(page, "Find entities")
    ask(page, text=f"A{hostile}")
    expect(page.locator("#answer mark").first).to_contain_text("A<img")
    assert page.locator("#answer img, #answer script").count() == 0 and page.title() == "standin - tf_bert"


def test_typed_text_stays_when_the_task_changes(page):
    page.locator("textarea[name=text]").fill("Anna ging")
    choose(page, "Find entities")
    assert page.locator("textarea[name=text]").input_value() == "Anna ging"


def test_mistakes_are_shown_as_the_server_says_them(browser, server):
    page, _, told = open_page(browser, server)
    ask(page, text="ä" * 2501)
    expect(page.locator("#problem")).to_have_text(
        "input text: example 0: found 5,002 bytes, expected 5,000 at most; shorten the text"
    )
    expect(page.locator("#answer")).to_be_hidden()
    ask(page, text="abc")
    expect(page.locator("#answer .headline")).to_have_text("short")
    expect(page.locator("#problem")).to_be_hidden()
    page.close()
    assert len(told) == 1 and "status of 400" in told[0]


def test_a_server_that_has_gone(browser, tmp_path):
    with running(write_export(tmp_path / "standin", 7)) as server:
        page, _, _ = open_page(browser, server)
    ask(page, text="abc")
    expect(page.locator("#problem")).to_have_text("The server does not answer.")
    page.close()


def test_pairs_and_the_dark(browser, tmp_path):
    with running(write_export(tmp_path / "pairs", 7, "pair")) as server:
        page, _, told = open_page(browser, server, color_scheme="dark")
        assert [area.get_attribute("name") for area in page.locator("textarea").all()] == ["text", "text_pair"]
        assert page.locator("#tasks button").count() == 0
        ask(page, text="one", text_pair="one")
        expect(page.locator("#answer .headline")).to_have_text("same")
        ask(page, text_pair="two")
        expect(page.locator("#answer .headline")).to_have_text("different")
        assert [bar[:2] for bar in bars(page)] == [("different", "80.0%"), ("same", "20.0%")]
        save_picture(page, tmp_path, "pairs")
        page.close()
    assert told == []


def test_a_model_without_texts(browser, tmp_path):
    with running(write_export(tmp_path / "ids", 7, "tokens")) as server:
        page, _, _ = open_page(browser, server)
        expect(page.locator("#problem")).to_have_text(
            "This model has no signature that takes texts; ask it with REST or gRPC."
        )
        page.close()
