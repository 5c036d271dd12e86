"""What people see of a run in TensorBoard, in a real browser."""

import re
import runpy
import shutil
from pathlib import Path

import matplotlib.image
import pytest
from pretraining_runs import finish, start

from tf_bert.run_log import METRICS_FILE, TENSORBOARD_DIR, read_metrics

SCRIPT = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "tensorboard_pictures.py"))


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="Chromium is missing")
def test_charts_and_texts_of_a_run_are_drawn(data_dir, tmp_path):
    finish(start(data_dir, tmp_path / "run"))
    shown = SCRIPT["draw"](tmp_path / "run" / TENSORBOARD_DIR, tmp_path / "pictures")
    logged = {tag for entry in read_metrics(tmp_path / "run" / METRICS_FILE) for tag in entry}
    for name, (tags, height) in SCRIPT["CHARTS"].items():
        assert shown[name] == sorted(tag for tag in logged if re.search(tags, tag)), name
        assert len(shown[name]) >= 5
        picture = matplotlib.image.imread(tmp_path / "pictures" / f"tensorboard-{name}.png")
        assert picture.shape[:2] == (height, SCRIPT["WIDTH"])
    assert shown["guesses"] == ["validation/guesses"]
    assert (tmp_path / "pictures" / "tensorboard-guesses.png").exists()
