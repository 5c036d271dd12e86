"""Commands that train: pretraining, finetuning, GLUE, sweeps; and what a finetuned model answers."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tf_bert.commands.arguments import START_NUMBERS, parser_of, read_config, take_options
from tf_bert.errors import OtherRankFailed, UsageError

# Options of `pretrain` about this start, not about the run: how they are written, and what they do.
_START_OPTIONS = {
    "ranks": ("ranks N", "Start N ranks on this machine (1)."),
    "elastic": ("elastic", "Under horovodrun --min-np: go on with the ranks that are left when others are lost."),
    "dry_run": ("dry-run", "Check settings, data and machine, show what the run would take, and start nothing."),
    "tokens_per_second": ("tokens-per-second X", "With --dry-run: the speed of all ranks together, for the time."),
    "price": ("price X", "With --dry-run: what a device costs an hour, for the cost."),
}


def pretrain(arguments: Sequence[str]) -> None:
    from tf_bert.config import PretrainConfig

    def complete(values: Mapping[str, Any]) -> dict[str, Any]:
        if not values.get("init"):  # without a source, nothing of TensorFlow is needed to read the settings
            return dict(values)
        from tf_bert.initial_weights import complete_settings

        return complete_settings(values)

    start, arguments = _take_start_options(arguments)
    config = read_config(PretrainConfig, "pretrain", arguments, dict(_START_OPTIONS.values()), complete)
    ranks = int(start["ranks"] or 1)
    if start["dry_run"]:
        from tf_bert.preflight import Outlook, preflight

        preflight(config, Outlook(ranks, start["tokens_per_second"], start["price"]))
        return
    if ranks > 1:
        _run_local_ranks(ranks, "pretrain", arguments)
        return
    from tf_bert.pretraining import pretrain

    with _reporting(config.output_dir):
        pretrain(config, elastic=start["elastic"])


def _take_start_options(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The values of `_START_OPTIONS`, None where one is not given, and the other arguments."""
    options, others = take_options(arguments, ("--dry-run", "--elastic"), tuple(START_NUMBERS))
    if not options["dry_run"] and (options["tokens_per_second"] or options["price"]):
        raise UsageError("--tokens-per-second and --price are about what a run would take; add --dry-run")
    return options, others


def finetune(arguments: Sequence[str]) -> None:
    from tf_bert.config import FinetuneConfig

    if config := _config_of_rank(FinetuneConfig, "finetune", arguments):
        from tf_bert.finetuning.run import finetune

        with _reporting(config.model_dir):
            finetune(config)


def glue(arguments: Sequence[str]) -> None:
    from tf_bert.config import GlueConfig

    if config := _config_of_rank(GlueConfig, "glue", arguments):
        from tf_bert.finetuning.glue import glue

        with _reporting(config.model_dir):
            glue(config)


def sweep(arguments: Sequence[str]) -> None:
    from tf_bert.config import SweepConfig

    if config := _config_of_rank(SweepConfig, "sweep", arguments):
        from tf_bert.finetuning.sweep import sweep

        with _reporting(config.model_dir):
            sweep(config)


def evaluate(arguments: Sequence[str]) -> None:
    parser = parser_of("evaluate", "Show the metrics of a finetuned model on files with labels.")
    parser.add_argument("model_dir", help="a finetuned model's directory, or that of its run")
    parser.add_argument("--data", required=True, help="a file, the directory of the task's files, or one that holds it")
    parser.add_argument("--split", nargs="+", default=(), help="e.g. dev (default: all that the task is evaluated on)")
    parser.add_argument("--page", help="an HTML file to write with the confusion matrix and the worst errors")
    options = parser.parse_args(arguments)
    from tf_bert.finetuning.run import evaluate

    for line in evaluate(options.model_dir, options.data, options.split, options.page):
        print(line)


def predict(arguments: Sequence[str]) -> None:
    parser = parser_of("predict", "Let a finetuned model answer for every example of a file or of standard input.")
    parser.add_argument("model_dir", nargs="?", help="a finetuned model's directory, or that of its run")
    parser.add_argument("--export", help="in its place: an export, of which the newest version answers, or one version")
    parser.add_argument(
        "--input", help="a file (default: standard input, a text or two with a tab between them a line)"
    )
    parser.add_argument("--split", default="test", help="which of the task's files has the columns of --input (test)")
    parser.add_argument("--output", help="a file to write, .jsonl or .tsv (default: standard output)")
    parser.add_argument("--format", choices=("jsonl", "tsv"), help="(default: as --output ends, or else jsonl)")
    parser.add_argument("--batch_size", type=int, default=128, help="answers come after so many examples (128)")
    options = parser.parse_args(arguments)
    output = None if options.output is None else Path(options.output)
    file_format = options.format or ("jsonl" if output is None else output.suffix.removeprefix("."))
    if file_format not in ("jsonl", "tsv"):
        raise UsageError(f"--output: found {output}, expected a name that ends with .jsonl or .tsv; or give --format")
    if options.batch_size < 1:
        raise UsageError(f"--batch_size: found {options.batch_size}, expected 1 or more")
    if (options.model_dir is None) == (options.export is None):
        found = "neither" if options.export is None else "both"
        raise UsageError(f"found {found}, expected a model directory or --export EXPORT_DIR; give one of the two")
    from tf_bert.finetuning.export_predictor import open_export
    from tf_bert.finetuning.model_directory import open_finetuned_model
    from tf_bert.finetuning.run import format_predictions, predict, write_predictions

    predictor = (
        open_finetuned_model(Path(options.model_dir)) if options.export is None else open_export(Path(options.export))
    )
    predictions = predict(predictor, options.input or sys.stdin.buffer, options.split, options.batch_size)
    if output:
        print(f"{output}: {write_predictions(predictions, output, file_format):,} predictions")
        return
    for line in format_predictions(predictions, file_format):
        print(line, flush=True)


def _config_of_rank(cls: Any, command: str, arguments: Sequence[str]) -> Any:
    """The configuration; None where --ranks asked for several ranks, which have run the command by now."""
    start, arguments = take_options(arguments, (), ("--ranks",))
    config = read_config(cls, command, arguments, dict([_START_OPTIONS["ranks"]]))
    if (ranks := int(start["ranks"] or 1)) > 1:
        _run_local_ranks(ranks, command, arguments)
        return None
    return config


def _reporting(directory: str) -> AbstractContextManager[None]:
    """A block whose runs, all in `directory`, also report to Azure where the command is part of a job there."""
    from tf_bert.azure.run_context import LIVE_DIR, AzureTracker, in_azure_job
    from tf_bert.run_log import TENSORBOARD_DIR, Reporting, reporting_to

    if not in_azure_job():
        return reporting_to(None)
    return reporting_to(Reporting(Path(directory), AzureTracker(), LIVE_DIR / TENSORBOARD_DIR))


def _run_local_ranks(ranks: int, command: str, arguments: Sequence[str]) -> None:
    from tf_bert.local_ranks import run_local_ranks

    if code := run_local_ranks(ranks, [sys.executable, "-m", "tf_bert.cli", command, *arguments]):
        raise OtherRankFailed(code)
