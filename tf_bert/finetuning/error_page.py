"""A model's errors for people: one HTML file that needs nothing else and runs nothing, and the same in TensorBoard.

Texts come from data that nobody has looked through: they are escaped, and the page forbids scripts and requests.
"""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from tf_bert.errors import UsageError
from tf_bert.files import atomic_writer
from tf_bert.finetuning.error_analysis import Error, Evaluated, confusion_matrix, confusions, worst_errors
from tf_bert.finetuning.error_pictures import MOST_LABELS, draw_errors
from tf_bert.finetuning.family import Family
from tf_bert.finetuning.tasks import Task
from tf_bert.finetuning.text import TextFamily
from tf_bert.pictures import NOT_DRAWN
from tf_bert.run_log import RunLog

PAGE_FILE = "errors.html"

_WORST = 50  # examples on the page
_WORST_LOGGED = 20  # in TensorBoard
_CONFUSIONS = 10
_TEXT = 1000  # characters of a text

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1c; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin-top: 1.8rem; }
table { border-collapse: collapse; }
th, td { padding: .35rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }
th { font-weight: 600; border-bottom: 2px solid #999; white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.text { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 24rem; }
td.text b { display: block; font-size: .75rem; font-weight: 600; color: #767676; margin-top: .3rem; }
td.text b:first-child { margin-top: 0; }
.scroll { overflow-x: auto; } table.wide { width: 100%; } td.label { overflow-wrap: anywhere; }
.gold { color: #0b6623; } .predicted { color: #a3121f; }
.place { color: #767676; font-size: .8rem; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; } figcaption, .note { color: #555; }
"""


def write_error_page(path: Path, family: Family, evaluated: Sequence[Evaluated], title: str = "") -> None:
    """Writes the page.

    Args:
      path: the file.
      family: the task.
      evaluated: what is shown, set by set.
      title: of the page; empty: the task's name.

    Raises:
      UsageError: if there is no such page for the task.
      InputError: if the operating system refuses to write.
    """
    task = need_error_page(family)
    title = escape(title or f"Errors in {task.name}")
    sections = "".join(_section(task, one) for one in evaluated)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{sections}</body>\n</html>\n"
    )
    with atomic_writer(path) as file:
        file.write(page.encode())


def log_errors(log: RunLog, step: int, family: Family, evaluated: Sequence[Evaluated]) -> None:
    """Records the pictures as images and the worst errors as texts, `SPLIT/errors` and `SPLIT/worst_errors`.

    Args:
      log: of the run.
      step: updates done.
      family: the task.
      evaluated: what is shown.

    Raises:
      UsageError: if there is no such picture for the task.
    """
    task = need_error_page(family)
    for one in evaluated:
        if png := draw_errors(task, one):
            log.image(step, f"{one.split}/errors", png)
        log.text(step, f"{one.split}/worst_errors", _markdown(task, worst_errors(task, one, _WORST_LOGGED)))


def has_error_page(family: Family) -> bool:
    """Whether there is a page for a task: it has a label or a number for each example."""
    return isinstance(family, TextFamily)


def need_error_page(family: Family) -> Task:
    """The task; raises `UsageError` if there is no page for it."""
    if not isinstance(family, TextFamily):
        raise UsageError(f"{family.name}: there is no page of errors for this kind of task; leave it out")
    return family.task


# --- the parts of the page -----------------------------------------------------------------------------------------


def _section(task: Task, evaluated: Evaluated) -> str:
    metrics = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{value:.4f}</td></tr>\n'
        for name, value in evaluated.metrics.values.items()
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in evaluated.metrics.notes)
    return (
        f"<h2>{escape(evaluated.split)}: {len(evaluated.examples):,} examples</h2>\n<table>\n{metrics}</table>\n{notes}"
        f"{_picture(task, evaluated)}{_confusions(task, evaluated)}{_worst(task, evaluated)}"
    )


def _picture(task: Task, evaluated: Evaluated) -> str:
    png = draw_errors(task, evaluated)
    if png is None:
        return f'<p class="note">{escape(NOT_DRAWN)}</p>\n'
    caption = {
        "classification": "Rows are the right labels, columns what the model says.",
        "multilabel": "Found, missed, and predicted where it is wrong, by label.",
        "regression": "A dot for each example; on the dashed line the model is right.",
    }[task.kind]
    if len(task.labels) > MOST_LABELS:
        caption += f" Shown are the {MOST_LABELS} labels with the most errors, of {len(task.labels):,}."
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(caption)}">\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def _confusions(task: Task, evaluated: Evaluated) -> str:
    if task.kind != "classification":
        return ""
    found = confusions(task, confusion_matrix(task, evaluated), _CONFUSIONS)
    rows = "".join(
        f'<tr><td class="gold">{escape(gold)}</td><td class="predicted">{escape(predicted)}</td>'
        f'<td class="number">{count:,}</td></tr>\n'
        for gold, predicted, count in found
    )
    header = '<tr><th>right label</th><th>predicted</th><th class="number">examples</th></tr>\n'
    return f"<h3>Most frequent confusions</h3>\n<table>\n{header}{rows}</table>\n" if found else ""


def _worst(task: Task, evaluated: Evaluated) -> str:
    errors = worst_errors(task, evaluated, _WORST)
    if not errors:
        return "<p>No answer is wrong.</p>\n"
    header = "".join(f'<th class="{kind}">{name}</th>' for name, kind in _columns(task))
    rows = "".join(_row(task, error) for error in errors)
    table = f'<table class="wide">\n<tr>{header}</tr>\n{rows}</table>'
    return f'<h3>Worst errors, the highest loss first</h3>\n<div class="scroll">{table}</div>\n'


def _columns(task: Task) -> list[tuple[str, str]]:
    columns = [("loss", "number"), ("text", ""), ("right", ""), ("predicted", "")]
    if task.kind == "classification":
        columns += [("probability of it", "number"), ("of the right one", "number")]
    return columns


def _row(task: Task, error: Error) -> str:
    texts = [
        (f"<b>{escape(column)}</b>" if len(task.text_columns) > 1 else "") + f"<bdi>{escape(_clipped(text))}</bdi>"
        for column, text in zip(task.text_columns, error.example.texts, strict=True)
    ]
    place = f'<div class="place">{escape(Path(error.example.place).name)}</div>'
    cells = [
        f'<td class="number">{error.loss:.3f}</td>',
        f'<td class="text">{"".join(texts)}{place}</td>',
        f'<td class="label gold">{escape(error.gold)}</td>',
        f'<td class="label predicted">{escape(error.predicted)}</td>',
    ]
    if error.probability is not None and error.gold_probability is not None:
        cells += [f'<td class="number">{value:.1%}</td>' for value in (error.probability, error.gold_probability)]
    return f"<tr>{''.join(cells)}</tr>\n"


def _clipped(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


# --- TensorBoard ---------------------------------------------------------------------------------------------------


def _markdown(task: Task, errors: Sequence[Error]) -> str:
    if not errors:
        return "No answer is wrong."
    names = [name for name, _ in _columns(task)]
    rows = [names, ["---"] * len(names)]
    for error in errors:
        texts = " / ".join(_clipped(text) for text in error.example.texts)
        cells = [f"{error.loss:.2f}", _plain(texts), _plain(error.gold), _plain(error.predicted)]
        if error.probability is not None and error.gold_probability is not None:
            cells += [f"{error.probability:.1%}", f"{error.gold_probability:.1%}"]
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _plain(text: str) -> str:
    """A text that Markdown shows as it is: as character references, where a character would mean something."""
    return "".join(
        f"&#{ord(character)};" if character in "\\`*_{}[]()<>#+-.!|&~" else character
        for character in " ".join(text.split())
    )
