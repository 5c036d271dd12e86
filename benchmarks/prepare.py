"""How fast data is prepared, beside tf-models' `create_pretraining_data`, in one process.

python benchmarks/prepare.py [--repeats 5] [--copies 4] [--json FILE]

Both sides get the same plain text (the real dump excerpt so many times over, one sentence a line, blank lines between
documents), the same vocabulary of 8,000 tokens and the same settings (length 512, one pass, no n-grams); they take
turns, and the table shows medians and the ratio of the medians. Imports are not counted; what else a run costs that
does not grow with its text is, which is why the text is some megabytes long. tf-models masks while it writes; here
masks are drawn while training.
"""

import argparse
import bz2
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from inputs import EXCERPT, peer_records, read_texts, write_inputs

from tf_bert.config import PrepareConfig, QualityConfig
from tf_bert.pretraining_data.build import build

LENGTH, PREDICTIONS = 512, 77


def seconds(function) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def repeat_pages(xml: bytes, copies: int) -> bytes:
    """A dump that has the pages of `xml` so many times."""
    start, end = xml.index(b"<page>"), xml.rindex(b"</mediawiki>")
    return xml[:start] + copies * xml[start:end] + xml[end:]


class Measurements:
    """The inputs, and one method for each thing that is timed."""

    def __init__(self, directory: Path, copies: int) -> None:
        self.directory = directory
        self.runs = 0
        self.dump = directory / "dump.xml.bz2"
        self.dump.write_bytes(bz2.compress(repeat_pages(bz2.decompress(EXCERPT.read_bytes()), copies)))
        texts = read_texts(self.dump)
        self.text, self.vocab = write_inputs(texts, directory)
        self.paragraphs = directory / "paragraphs.txt"
        self.paragraphs.write_text("\n\n".join(texts), encoding="utf-8")
        self.fill = self.peer_fill = 0.0

    def _build(self, source: Path, splitter: str) -> None:
        self.runs += 1
        manifest = build(
            PrepareConfig(
                input=str(source),
                output_dir=str(self.directory / f"data-{self.runs}"),
                vocab=str(self.vocab),
                max_seq_length=LENGTH,
                validation_fraction=0.05,
                sentence_splitter=splitter,
                quality=QualityConfig(drop_exact_duplicates=False),  # the copies are to be prepared, each of them
            )
        )
        self.fill = manifest.splits["train"].fill

    def from_sentences(self) -> None:
        """Text with a sentence a line -> packed rows."""
        self._build(self.text, "line")

    def from_paragraphs(self) -> None:
        """Text whose sentences have to be found -> packed rows."""
        self._build(self.paragraphs, "punkt")

    def from_dump(self) -> None:
        """Wikipedia dump -> packed rows."""
        self._build(self.dump, "punkt")

    def peer_from_sentences(self) -> None:
        """The same text, tf-models -> masked, padded records."""
        self.peer_fill = peer_records(self.text, self.vocab, self.directory / "peer.tfrecord", LENGTH, PREDICTIONS)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side (default: 5)")
    parser.add_argument("--copies", type=int, default=4, help="of the excerpt's pages (default: 4)")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        measured = Measurements(Path(directory), options.copies)
        sides = {
            "text, a sentence a line": (measured.from_sentences, measured.text.stat().st_size),
            "text, sentences found": (measured.from_paragraphs, measured.paragraphs.stat().st_size),
            "dump (bytes of XML)": (measured.from_dump, _uncompressed_size(measured.dump)),
            "tf-models, a sentence a line": (measured.peer_from_sentences, measured.text.stat().st_size),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        measured.from_sentences()  # warm-up: TensorFlow's kernels, the file cache
        for _ in range(options.repeats):
            for name, (run, _) in sides.items():
                times[name].append(seconds(run))
        fills = {"packed rows": measured.fill, "tf-models": measured.peer_fill}
    rates = {name: size / statistics.median(times[name]) / 1e6 for name, (_, size) in sides.items()}
    ratio = rates["text, a sentence a line"] / rates["tf-models, a sentence a line"]

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"tensorflow {version('tensorflow')}, tf-models-official {version('tf-models-official')}; "
        f"length {LENGTH}, medians of {options.repeats} alternating runs\n"
    )
    print("| input | MB/s | seconds: min, median, max |\n|---|---|---|")
    for name, rate in rates.items():
        spread = min(times[name]), statistics.median(times[name]), max(times[name])
        print(f"| {name} | {rate:.2f} | {', '.join(f'{value:.2f}' for value in spread)} |")
    print(f"\ntext to records, ours over tf-models: {ratio:.1f}")
    print("share of positions that hold a token: " + ", ".join(f"{name} {fill:.1%}" for name, fill in fills.items()))
    if options.json:
        options.json.write_text(json.dumps({"seconds": times, "mb_per_second": rates, "ratio": ratio, "fill": fills}))


def _uncompressed_size(path: Path) -> int:
    from tf_bert.corpus.blocks import Part, read_blocks

    return sum(len(block) for block in read_blocks(Part(path)))


if __name__ == "__main__":
    main()
