"""The picture of a run: report.png, drawn from its metrics.jsonl."""

from pathlib import Path
from typing import Any

from tf_bert.pictures import NOT_DRAWN, open_pyplot, save_picture
from tf_bert.run_log import METRICS_FILE, read_metrics


def draw_report(run_dir: Path, path: Path, unigram_loss: float | None) -> str:
    """Draws losses, accuracies, rate and gradient norm over the steps.

    Args:
      run_dir: holds `metrics.jsonl`.
      path: the PNG to write.
      unigram_loss: held-out cross-entropy of training unigrams in nats, drawn as a line: what a model reaches that
        knows how frequent tokens are and nothing of their context.

    Returns:
      What to tell the user: the path, or why there is no picture.
    """
    pyplot = open_pyplot()
    if pyplot is None:
        return NOT_DRAWN
    entries = read_metrics(run_dir / METRICS_FILE)
    figure, axes = pyplot.subplots(2, 2, figsize=(12, 8), layout="constrained")
    figure.suptitle(f"Pretraining run {run_dir.name}")

    _curves(axes[0, 0], entries, "masked_lm_loss", "masked-LM loss (nats)")
    if unigram_loss is not None:
        axes[0, 0].axhline(unigram_loss, color="black", linestyle="--", linewidth=1, label="unigrams on validation")
    axes[0, 0].legend()
    _curves(axes[0, 1], entries, "masked_lm_accuracy", "accuracy", label="masked LM, ")
    _curves(axes[0, 1], entries, "next_sentence_accuracy", "accuracy", label="next sentence, ", dashed=True)
    axes[0, 1].legend()
    _curves(axes[1, 0], entries, "gradient_norm", "gradient norm before clipping")
    axes[1, 0].set_yscale("log")
    _curves(axes[1, 1], entries, "learning_rate", "learning rate")
    for axis in axes.flat:
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)

    return save_picture(pyplot, figure, path)


def _curves(
    axis: Any, entries: list[dict[str, float]], name: str, title: str, label: str = "", dashed: bool = False
) -> None:
    """Training as a thin line, validation as dots on a thick one."""
    for group, style in (("train", {"linewidth": 0.8}), ("validation", {"linewidth": 2.0, "marker": "o"})):
        points = [(entry["step"], entry[f"{group}/{name}"]) for entry in entries if f"{group}/{name}" in entry]
        if points:
            steps, values = zip(*points, strict=True)
            axis.plot(steps, values, label=label + group, linestyle="--" if dashed else "-", **style)
    axis.set_title(title)
