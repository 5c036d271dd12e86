"""Where a model goes wrong: the counts and losses, the page in a parser and in a real browser, TensorBoard's view."""

import base64
import html.parser
import io
import math
import re
import shutil
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from glue_files import rows_of, write_glue
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from sklearn.metrics import log_loss, multilabel_confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tiny_model import CONFIG, VOCABULARY

from tf_bert import cli
from tf_bert.errors import UsageError
from tf_bert.finetuning.entities import EntityFamily
from tf_bert.finetuning.error_analysis import Evaluated, confusion_matrix, confusions, label_counts, worst_errors
from tf_bert.finetuning.error_page import has_error_page, log_errors, write_error_page
from tf_bert.finetuning.error_pictures import MOST_LABELS, draw_errors
from tf_bert.finetuning.examples import Example
from tf_bert.finetuning.model_directory import write_finetuned_model
from tf_bert.finetuning.tasks import TASKS, custom_task
from tf_bert.finetuning.text import TextFamily
from tf_bert.run_log import TENSORBOARD_DIR, RunLog
from tf_bert.tokenization.tokenizer import make_tokenizer

HOSTILE = (
    '<script>document.title = "hacked"</script>',
    '<img src="http://127.0.0.1:9/x.png" onerror="document.title = 1">',
    '</td></table><h1 onclick="x()">&lt;b&gt; & \' "',
    "| a | *b* _c_ `d` [e](javascript:f) # g ~~h~~ 1. \\ !",
    "\u202eabc \u0085 \u2028 \x0b שלום",
)


def evaluated(task, labels, logits, texts=("some text", "another"), split="dev"):
    """A set of examples, with what the family makes of these outputs of a model."""
    family = TextFamily(task)
    examples = [
        Example(
            f"data/dev.tsv: line {number + 2}",
            (texts[number % len(texts)], f"second {number}")[: len(task.text_columns)],
            label,
            str(number),
        )
        for number, label in enumerate(labels)
    ]
    told = family.decode(examples, [{"logits": np.array(row, np.float32)} for row in logits], None)
    return Evaluated(split, examples, told, family.evaluate(examples, told))


def custom(kind, labels=None, **settings):
    return custom_task({"train": "train.csv", "dev": "dev.csv"}, ["text"], "label", kind, labels, **settings)


def drawn(count, classes, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += 1.0
    return labels.tolist(), logits


def softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


# --- counts and losses ---------------------------------------------------------------------------------------------


def test_the_matrix_is_scikit_learns():
    labels, logits = drawn(200, 3)
    matrix = confusion_matrix(TASKS["MNLI"], evaluated(TASKS["MNLI"], labels, logits))
    np.testing.assert_array_equal(matrix, sklearn_confusion_matrix(labels, logits.argmax(1)))


def test_confusions_are_the_largest_counts_beside_the_diagonal():
    matrix = np.array([[50, 3, 0], [7, 40, 3], [0, 0, 60]])
    names = TASKS["MNLI"].labels
    assert confusions(TASKS["MNLI"], matrix, 10) == [
        (names[1], names[0], 7), (names[0], names[1], 3), (names[1], names[2], 3),
    ]  # fmt: skip
    assert confusions(TASKS["MNLI"], matrix, 1) == [(names[1], names[0], 7)]


def test_the_worst_errors_have_the_highest_cross_entropy():
    labels, logits = drawn(200, 3)
    errors = worst_errors(TASKS["MNLI"], evaluated(TASKS["MNLI"], labels, logits), 1000)
    predicted, chances = logits.argmax(1), softmax(logits)
    wrong = [number for number in range(200) if labels[number] != predicted[number]]
    losses = {n: log_loss([labels[n]], chances[n : n + 1], labels=[0, 1, 2]) for n in wrong}
    order = sorted(wrong, key=lambda number: -losses[number])
    assert [error.example.index for error in errors] == [str(number) for number in order]
    for error, number in zip(errors, order, strict=True):
        assert error.loss == pytest.approx(losses[number], rel=1e-6)
        assert error.gold == TASKS["MNLI"].labels[labels[number]]
        assert error.predicted == TASKS["MNLI"].labels[predicted[number]]
        assert error.probability == pytest.approx(chances[number].max(), rel=1e-6)
        assert error.gold_probability == pytest.approx(chances[number, labels[number]], rel=1e-6)
    assert worst_errors(TASKS["MNLI"], evaluated(TASKS["MNLI"], labels, logits), 3) == errors[:3]


def test_a_certain_mistake_has_a_finite_loss():
    (error,) = worst_errors(TASKS["RTE"], evaluated(TASKS["RTE"], [0], [[-1e4, 1e4]]), 9)
    assert error.gold_probability == 0.0 and error.loss == pytest.approx(math.log(1e12))


def test_labels_are_counted_one_by_one_where_an_example_has_several():
    task = custom("multilabel", ["a", "b", "c"], label_separator=",")
    rng = np.random.default_rng(1)
    gold = rng.random((60, 3)) < 0.4
    logits = (rng.normal(size=(60, 3)) + gold).astype(np.float32)
    found = logits > 0
    one = evaluated(task, [tuple(np.flatnonzero(row).tolist()) for row in gold], logits)
    tables = multilabel_confusion_matrix(gold, found)
    expected = [[table[1, 1], table[1, 0], table[0, 1]] for table in tables]  # found, missed, wrong
    np.testing.assert_array_equal(label_counts(task, one), expected)
    errors = worst_errors(task, one, 1000)
    assert len(errors) == np.count_nonzero((gold != found).any(axis=1))
    chances = 1 / (1 + np.exp(-logits.astype(np.float64)))
    losses = -np.where(gold, np.log(chances), np.log(1 - chances)).mean(axis=1)
    assert [error.loss for error in errors] == pytest.approx(sorted(losses[(gold != found).any(axis=1)])[::-1])
    number = int(errors[0].example.index)
    assert errors[0].gold == (", ".join(np.array(["a", "b", "c"])[gold[number]]) or "none")
    told = [f"{word} {chances[number, place]:.0%}" for place, word in enumerate("abc") if found[number, place]]
    assert errors[0].predicted == (", ".join(told) or "none") and errors[0].probability is None


def test_numbers_are_ordered_by_their_squared_error():
    errors = worst_errors(TASKS["STS-B"], evaluated(TASKS["STS-B"], [1.0, 5.0, 2.0], [[1.5], [2.0], [2.0]]), 9)
    assert [(e.gold, e.predicted, e.loss) for e in errors] == [("5", "2.000", 9.0), ("1", "1.500", 0.25)]


# --- pictures ------------------------------------------------------------------------------------------------------


def pixels(png):
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def test_the_picture_of_a_matrix_is_dark_where_the_counts_are():
    labels = [0] * 50 + [1] * 50
    logits = [[1, 0]] * 50 + [[0, 1]] * 10 + [[1, 0]] * 40
    picture = pixels(draw_errors(TASKS["RTE"], evaluated(TASKS["RTE"], labels, logits)))
    blues = matplotlib.colormaps["Blues"]
    for share in (1.0, 0.8, 0.2, 0.0):
        is_cell = np.abs(picture - blues(share)[:3]).max(axis=2) < 2 / 255
        assert is_cell.sum() > 2000, f"no cell of {share:.0%}"


@pytest.mark.parametrize("classes", [2, 12, MOST_LABELS + 15])
def test_labels_of_any_number_and_spelling_are_drawn(classes):
    task = custom("classification", [f"$label_{number}^ of \\a <very> long name" for number in range(classes)])
    assert min(pixels(draw_errors(task, evaluated(task, *drawn(300, classes)))).shape[:2]) > 200


def test_numbers_that_are_all_the_same_are_drawn():
    assert pixels(draw_errors(TASKS["STS-B"], evaluated(TASKS["STS-B"], [1.0, 1.0], [[1.0], [1.0]]))).size


# --- the page ------------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """What is on a page: tags with their attributes, and the texts of table cells, row by row."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.rows, self.open, self.text = [], [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "tags are not closed in their order"

    def handle_data(self, data):
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def pictures(self):
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        return [base64.b64decode(source.partition(",")[2]) for source in sources]


def written(tmp_path, task, *sets):
    write_error_page(tmp_path / "errors.html", TextFamily(task), sets)
    return Page(tmp_path / "errors.html")


def test_the_page_has_metrics_picture_and_errors(tmp_path):
    labels, logits = drawn(200, 3)
    one = evaluated(TASKS["MNLI"], labels, logits, split="dev_matched")
    page = written(tmp_path, TASKS["MNLI"], one)
    assert "Errors in MNLI" in page.text and "dev_matched: 200 examples" in page.text
    assert ["accuracy", f"{np.mean(logits.argmax(1) == labels):.4f}"] in page.rows
    (picture,) = page.pictures()
    assert picture == draw_errors(TASKS["MNLI"], one)
    matrix = sklearn_confusion_matrix(labels, logits.argmax(1))
    for gold, predicted, count in confusions(TASKS["MNLI"], matrix, 6):
        assert [gold, predicted, str(count)] in page.rows
    header = page.rows.index(["loss", "text", "right", "predicted", "probability of it", "of the right one"])
    errors = worst_errors(TASKS["MNLI"], one, 50)
    assert len(page.rows) == header + 1 + len(errors) and len(errors) == 50
    for row, error in zip(page.rows[header + 1 :], errors, strict=True):
        place = error.example.place.removeprefix("data/")
        texts = f"sentence1{error.example.texts[0]}sentence2{error.example.texts[1]}{place}"
        shares = [f"{error.probability:.1%}", f"{error.gold_probability:.1%}"]
        assert row == [f"{error.loss:.3f}", texts, error.gold, error.predicted, *shares]


def test_every_set_has_its_section(tmp_path):
    sets = [evaluated(TASKS["MNLI"], *drawn(30, 3, seed), split=split) for seed, split in enumerate(("one", "two"))]
    page = written(tmp_path, TASKS["MNLI"], *sets)
    assert "one: 30 examples" in page.text and "two: 30 examples" in page.text and len(page.pictures()) == 2


def test_other_kinds_of_tasks_have_their_pages(tmp_path):
    page = written(tmp_path, TASKS["STS-B"], evaluated(TASKS["STS-B"], [1.0, 5.0], [[1.5], [2.0]]))
    assert page.rows[3:] == [
        ["loss", "text", "right", "predicted"],
        ["9.000", "sentence1anothersentence2second 1dev.tsv: line 3", "5", "2.000"],
        ["0.250", "sentence1some textsentence2second 0dev.tsv: line 2", "1", "1.500"],
    ]
    task = custom("multilabel", ["a<b", "c"], label_separator=",")
    page = written(tmp_path, task, evaluated(task, [(0,), ()], [[-2.0, 2.0], [-1.0, -1.0]]))
    assert page.rows[-1] == ["2.127", "some textdev.tsv: line 2", "a<b", "c 88%"]
    task = custom("classification", [f"label {number}" for number in range(30)])
    page = written(tmp_path, task, evaluated(task, *drawn(200, 30)))
    assert "Shown are the 25 labels with the most errors, of 30." in page.text


def test_notes_are_there_and_no_errors_are_said(tmp_path):
    page = written(tmp_path, TASKS["RTE"], evaluated(TASKS["RTE"], [0, 0], [[1, 0], [1, 0]]))
    assert "No answer is wrong." in page.text and "all 2 labels are 'entailment'" in page.text
    assert page.rows == [["accuracy", "1.0000"]]


def hostile_page(tmp_path):
    task = custom("classification", [*HOSTILE[:2], "b"])
    write_error_page(
        tmp_path / "errors.html",
        TextFamily(task),
        [evaluated(task, [0, 1, 0, 1, 0, 2], [[0, 5, 0], [5, 0, 0]] * 3, texts=(*HOSTILE, "x" * 5000))],
        title=HOSTILE[0],
    )
    return tmp_path / "errors.html"


def test_texts_and_labels_stay_text(tmp_path):
    page = Page(hostile_page(tmp_path))
    ours = r"html|head|meta|title|style|body|h[123]|table|tr|th|td|figure|figcaption|img|div|bdi"
    assert all(re.fullmatch(ours, tag) for tag, _ in page.tags)
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert sum(tag == "img" for tag, _ in page.tags) == 1 and page.pictures()
    cells = [cell for row in page.rows for cell in row]
    for text in HOSTILE:
        assert any(cell.startswith(text) for cell in cells), text
    assert ("x" * 999 + "…dev.tsv: line 7") in cells


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(not CHROMIUM, reason="Chromium is missing")
def test_a_browser_runs_and_fetches_nothing_of_the_page(tmp_path):
    from playwright.sync_api import sync_playwright

    path = hostile_page(tmp_path)
    requests, messages = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.goto(path.as_uri())
        assert page.title() == HOSTILE[0]
        assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()] and messages == []
        assert page.locator("script, h1[onclick]").count() == 0
        assert page.get_by_role("img").evaluate("image => image.naturalWidth") > 200
        assert page.evaluate("document.documentElement.scrollWidth") <= 1200
        # Were there a script after all, the page's own policy would not let it run.
        page.set_content(path.read_text().replace("</body>", "<script>document.title = 'ran'</script></body>"))
        assert page.title() == HOSTILE[0] and any("Content Security Policy" in message for message in messages)
        browser.close()


def test_a_task_of_another_kind_is_one_line(tmp_path):
    family = EntityFamily(("O", "B-PER"))
    assert not has_error_page(family) and has_error_page(TextFamily(TASKS["RTE"]))
    with pytest.raises(UsageError, match=r"^\S+: there is no page of errors for this kind of task; leave it out$"):
        write_error_page(tmp_path / "errors.html", family, [])
    assert list(tmp_path.iterdir()) == []


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A directory with `glue`, and `model`, which guesses what MNLI's labels are."""
    directory = tmp_path_factory.mktemp("model")
    write_glue(directory / "glue")
    family, tokenizer = TextFamily(TASKS["MNLI"]), make_tokenizer(VOCABULARY, lower_case=True)
    write_finetuned_model(
        directory / "model", family.make_model(CONFIG, "float32", 0), family, tokenizer, max_seq_length=32, lineage={}
    )
    return directory


def test_evaluate_writes_a_page_of_all_sets(model, tmp_path, capsys):
    words = ["evaluate", str(model / "model"), "--data", str(model / "glue")]
    assert cli.main(words) == 0
    without = capsys.readouterr().out
    path = tmp_path / "errors.html"
    assert cli.main([*words, "--page", str(path)]) == 0
    assert capsys.readouterr().out == f"{without}errors: {path}\n"
    page = Page(path)
    for split in ("dev_matched", "dev_mismatched"):
        (accuracy,) = re.findall(rf"MNLI {split}: accuracy (\S+)", without)
        assert f"{split}: 12 examples" in page.text and ["accuracy", accuracy] in page.rows
    texts = {f"sentence1{a}sentence2{b}" for a, b in (row.texts for row in rows_of("MNLI", "dev_matched"))}
    assert len(page.pictures()) == 2 and any(cell.startswith(tuple(texts)) for row in page.rows for cell in row)


def test_without_matplotlib_the_page_comes_all_the_same(model, tmp_path):
    script = (
        "import sys; sys.modules['matplotlib'] = None; from tf_bert import cli; "
        f"sys.exit(cli.main(['evaluate', {str(model / 'model')!r}, '--data', {str(model / 'glue')!r}, "
        "'--page', 'errors.html']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = Page(tmp_path / "errors.html")
    assert page.pictures() == [] and page.text.count("not drawn: matplotlib is missing") == 2
    assert "Worst errors, the highest loss first" in page.text


# --- TensorBoard ---------------------------------------------------------------------------------------------------


def test_tensorboard_has_the_picture_and_the_worst_errors(tmp_path):
    task = custom("classification", [*HOSTILE[:2], "b"])
    one = evaluated(task, [0, 1, 0, 1, 0, 2], [[0, 5, 0], [5, 0, 0]] * 3, texts=HOSTILE)
    log = RunLog(tmp_path)
    log_errors(log, 70, TextFamily(task), [one])
    log.close()
    events = EventAccumulator(str(tmp_path / TENSORBOARD_DIR))
    events.Reload()
    (image,) = events.Tensors("dev/errors")
    assert image.step == 70 and events.SummaryMetadata("dev/errors").plugin_data.plugin_name == "images"
    width, height, png = image.tensor_proto.string_val
    assert png == draw_errors(task, one)
    assert (int(height), int(width)) == matplotlib.image.imread(io.BytesIO(png)).shape[:2]
    (text,) = events.Tensors("dev/worst_errors")
    assert text.step == 70 and events.SummaryMetadata("dev/worst_errors").plugin_data.plugin_name == "text"
    shown = markdown_to_safe_html(text.tensor_proto.string_val[0])
    (tmp_path / "text.html").write_text(shown)
    page = Page(tmp_path / "text.html")
    assert {tag for tag, _ in page.tags} <= {"table", "thead", "tbody", "tr", "th", "td"}
    errors = worst_errors(task, one, 20)
    assert page.rows[0] == ["loss", "text", "right", "predicted", "probability of it", "of the right one"]
    assert [row[1:4] for row in page.rows[1:]] == [
        [" ".join(word.split()) for word in (error.example.texts[0], error.gold, error.predicted)] for error in errors
    ]


def test_without_errors_tensorboard_says_so(tmp_path):
    log = RunLog(tmp_path)
    log_errors(log, 7, TextFamily(TASKS["RTE"]), [evaluated(TASKS["RTE"], [0], [[1, 0]])])
    log.close()
    events = EventAccumulator(str(tmp_path / TENSORBOARD_DIR))
    events.Reload()
    assert events.Tensors("dev/worst_errors")[0].tensor_proto.string_val == [b"No answer is wrong."]
