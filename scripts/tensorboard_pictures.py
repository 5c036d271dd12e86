"""Looks at a run in TensorBoard with a real browser, and writes what it shows as pictures.

python scripts/tensorboard_pictures.py LOG_DIR PICTURE_DIR

Chromium has to be installed (`apt-get install chromium`). Writes tensorboard-learning.png, tensorboard-time.png and
tensorboard-guesses.png, and prints the tags that each shows.
"""

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright

# By picture: the tags that it shows (TensorBoard draws twelve at once), and its height.
CHARTS = {
    "learning": ("masked_lm|validation/loss|learning_rate|gradient_norm", 1300),
    "time": ("tokens_per_second|flops|utilisation|_share$", 1300),
}
TEXTS = {"guesses": ("guesses", 800)}
WIDTH = 1300
PATIENCE = 60_000  # ms


@contextlib.contextmanager
def tensorboard(log_dir: Path) -> Iterator[str]:
    """Serves `log_dir` on a free port of this machine alone; yields the address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir), "--host", "127.0.0.1", "--port", "0"]
    # One file is read at once, so that everything is there when the first page is.
    command += ["--reload_interval", "1", "--load_fast", "false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            for line in process.stderr:
                if address := re.search(r"http://127\.0\.0\.1:\d+/", line):
                    yield address[0]
                    return
            raise RuntimeError("TensorBoard ended without an address")
        finally:
            process.terminate()


def draw(log_dir: Path, picture_dir: Path) -> dict[str, list[str]]:
    """Writes the pictures.

    Returns:
      By picture the tags that it shows, in their order.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("tensorboard_pictures: chromium is not installed; on Debian and Ubuntu: apt-get install chromium")
    picture_dir.mkdir(parents=True, exist_ok=True)
    titles = {}
    with tensorboard(log_dir) as address, sync_playwright() as playwright:
        # Root, as in a container, has no sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for pictures, open_page in ((CHARTS, _open_charts), (TEXTS, _open_texts)):
            for name, (tags, height) in pictures.items():
                page = browser.new_page(viewport={"width": WIDTH, "height": height})
                page.set_default_timeout(PATIENCE)
                titles[name] = open_page(page, address, tags)
                page.screenshot(path=picture_dir / f"tensorboard-{name}.png")
        browser.close()
    return titles


def _open_charts(page: Page, address: str, tags: str) -> list[str]:
    page.goto(f"{address}#timeseries")
    page.get_by_role("combobox", name="Filter tags (regex)").fill(tags)
    page.get_by_role("button", name="Toggle settings side pane").click()
    titles = _when_drawn(page.locator("metrics-filtered-view card-view tb-truncated-path"))
    return [title.get_attribute("title") or "" for title in titles]


def _open_texts(page: Page, address: str, tags: str) -> list[str]:
    page.goto(f"{address}#text")
    page.get_by_role("textbox", name="Filter tags (regular expressions supported)").fill(tags)
    found = page.locator("tf-category-paginated-view").first  # what matches; below it is everything once more
    return [title.inner_text() for title in _when_drawn(found.locator("[itemprop=tag]"))]


def _when_drawn(titles: Locator) -> list[Locator]:
    titles.first.wait_for()
    titles.page.wait_for_load_state("networkidle")  # what the cards show has come
    titles.page.wait_for_timeout(1000)  # lines are drawn, the pane has slid away
    return titles.all()


def main() -> None:
    """Writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log_dir", type=Path)
    parser.add_argument("picture_dir", type=Path)
    options = parser.parse_args()
    for name, titles in draw(options.log_dir, options.picture_dir).items():
        print(f"{options.picture_dir}/tensorboard-{name}.png: {', '.join(titles)}")


if __name__ == "__main__":
    main()
