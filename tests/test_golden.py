"""The loss curve of a small run on the real dump excerpt is the one that is kept, and two runs can be compared."""

import json
import runpy
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
GOLDEN = runpy.run_path(str(SCRIPTS / "write_golden_curve.py"))
compare_runs = runpy.run_path(str(SCRIPTS / "compare_runs.py"))["main"]


# With oneDNN and without, with its instructions limited to AVX2 and to SSE4.1, on one thread and on two, the curve was
# the same to 1e-6 in losses and 1.2e-7 in gradient norms, and every token was guessed alike. Twenty times that and more
# is allowed for other machines; a learning rate that is 1% higher moves losses by 6e-3, a beta_2 of 0.998 by 3e-3.
LOSS, EXACT = {"abs": 2e-5}, {"rel": 1e-6}
TOLERANCES = {
    "loss": LOSS,
    "masked_lm_loss": LOSS,
    "next_sentence_loss": LOSS,
    "gradient_norm": {"abs": 1e-5},
    "masked_lm_accuracy": {"abs": 0.005},  # one guess that tips over
    "next_sentence_accuracy": {"abs": 0.02},
    "learning_rate": EXACT,
    "loss_scale": EXACT,
    "tokens_seen": EXACT,
    "bad_steps_in_row": EXACT,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return GOLDEN["train"](tmp_path_factory.mktemp("golden"))


def test_the_golden_run_learns_what_it_learnt_when_the_curve_was_written(trained):
    kept = GOLDEN["curve"](GOLDEN["CURVE"])
    assert [entry["step"] for entry in trained] == [entry["step"] for entry in kept] and len(kept) == 83
    for ours, theirs in zip(trained, kept, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs.keys() - {"step"}:
            where = f"{name} at step {theirs['step']}"
            assert ours[name] == pytest.approx(theirs[name], **TOLERANCES[name.partition("/")[2]]), where


def write(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(path)


def test_two_runs_are_compared_at_their_common_steps(tmp_path, capsys):
    a = [{"step": step, "train/loss": 10.0 - step, "train/learning_rate": 0.5} for step in (1, 2, 3, 4)]
    b = [{"step": step, "train/loss": 10.0 - step + 0.25 * (step == 4)} for step in (2, 4, 6)]
    b.append({"step": 2, "validation/loss": 1.0})
    files = write(tmp_path / "a.jsonl", a), write(tmp_path / "b.jsonl", b)
    assert compare_runs([*files, "--png", str(tmp_path / "both.png")]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == "name steps mean of A mean of B mean |B - A| largest B - A at step".split()  # noqa: SIM905
    # Steps 2 and 4: 8 and 6 against 8 and 6.25.
    assert table[1].split() == ["train/loss", "2", "7", "7.125", "0.125", "0.25", "4"]
    assert table[2] == "" and table[3] == f"Picture: {tmp_path}/both.png"

    from matplotlib import image

    picture = image.imread(tmp_path / "both.png")[..., :3]
    assert picture.shape[:2] == (330, 1100)
    assert (abs(picture - [0.12, 0.47, 0.71]).max(axis=-1) < 0.05).sum() > 100  # A's blue line


def test_the_golden_run_compares_with_itself_without_a_difference(tmp_path, capsys):
    curve = str(GOLDEN["CURVE"])
    options = ["--png", str(tmp_path / "x.png"), "--only", "train/loss", "validation/loss"]
    assert compare_runs([curve, curve, *options]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:3]]
    assert [(row[0], row[1], row[4], row[5]) for row in rows] == [
        ("validation/loss", "3", "0", "0"),
        ("train/loss", "80", "0", "0"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"step": 7, "train/loss": 1.0}\n',
            "have no number at the same step to compare: train/loss, ... at steps 1",
        ),
        ("", "b.jsonl: holds no metrics; expected the metrics.jsonl of a run that has logged a step"),
        ('{"loss": 1.0}\n', "b.jsonl: an entry has no step; expected the metrics.jsonl of a run"),
        (None, "b.jsonl: cannot be read ([Errno 2] No such file or directory"),
    ],
)
def test_files_that_cannot_be_compared_are_one_line(tmp_path, capsys, content, message):
    a = write(tmp_path / "a.jsonl", [{"step": 1, "train/loss": 2.0}])
    if content is not None:
        (tmp_path / "b.jsonl").write_text(content)
    assert compare_runs([a, str(tmp_path / "b.jsonl"), "--png", str(tmp_path / "x.png")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compare_runs.py: ") and message in line
    assert not (tmp_path / "x.png").exists()
