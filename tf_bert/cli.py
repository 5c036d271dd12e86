"""The `tf-bert` command. Subcommands only: each imports its work when it runs, so that `--help` is instant."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_bert.errors import InputError, OtherRankFailed, UsageError

_NUMBER = r"\d{1,15}(\.\d{1,15})?"
CONFIG_COMMAND_USAGE = "tf-bert {command} [--config FILE.yaml] [--FIELD VALUE ...]"


def _vocab_train(arguments: Sequence[str]) -> None:
    from tf_bert.config import VocabTrainConfig

    config = _read_config(VocabTrainConfig, "vocab train", arguments)
    from tf_bert.corpus.read_report import ReadReport, tell_skipped
    from tf_bert.corpus.reader import list_input_files, read_documents
    from tf_bert.run_log import byte_progress

    output = Path(config.output)
    if not output.parent.is_dir():
        raise InputError(f"{output}: its directory {output.parent} does not exist; make it or choose another output")
    total = sum(path.stat().st_size for path in list_input_files(config))
    report = ReadReport()
    is_wordpiece = config.kind == "wordpiece"
    with byte_progress(2 * total if is_wordpiece else total, "reading twice" if is_wordpiece else "reading") as bar:

        def texts() -> Iterator[str]:
            nonlocal report
            report = ReadReport(config.max_skipped_documents)
            return (document.text for document in read_documents(config, bar.update, report))

        if is_wordpiece:
            from tf_bert.tokenization.vocab import train_vocabulary

            vocabulary = train_vocabulary(texts, config)
        else:
            from tf_bert.tokenization.sentencepiece import train_sentencepiece

            vocabulary = train_sentencepiece(texts(), config)
    vocabulary.save(output)
    print(f"{output}: {len(vocabulary):,} tokens")
    if skipped := tell_skipped(report.skipped):
        print(skipped)
    if len(vocabulary) < config.vocab_size:
        print(f"fewer than vocab_size {config.vocab_size:,}: the corpus has no more pieces that are frequent enough")


def _vocab_report(arguments: Sequence[str]) -> None:
    from tf_bert.config import VocabReportConfig

    config = _read_config(VocabReportConfig, "vocab report", arguments)
    from tf_bert.corpus.read_report import tell_skipped
    from tf_bert.corpus.sample import CorpusSample
    from tf_bert.run_log import byte_progress
    from tf_bert.tokenization.report import load_tokenizers, report_on
    from tf_bert.tokenization.report_plot import draw_vocab_report
    from tf_bert.tokenization.report_table import format_report

    picture = None if config.output_png is None else Path(config.output_png)
    if picture and not picture.parent.is_dir():
        raise InputError(f"{picture}: its directory {picture.parent} does not exist; make it or choose another one")
    tokenizers = load_tokenizers(config)
    sample = CorpusSample(config, int(config.max_megabytes * 1e6))
    with byte_progress(sample.input_bytes, "reading") as bar:
        report = report_on(sample.texts(bar.update), tokenizers, config.words)
    print(format_report(report, sample.share))
    if skipped := tell_skipped(sample.report.skipped):
        print(skipped)
    if picture:
        print(f"\nPicture: {draw_vocab_report(report, picture)}")


def _vocab_extend(arguments: Sequence[str]) -> None:
    parser = _parser("vocab extend", "Add the tokens of a corpus's vocabulary to that of a trained model.")
    parser.add_argument("base", help="the model's WordPiece vocabulary; its tokens keep their ids")
    parser.add_argument("other", help="a vocabulary that `tf-bert vocab train` made of the corpus")
    parser.add_argument("output", help="the file to write")
    parser.add_argument("--max_new_tokens", type=int, help="add so many at most, the first ones (default: all)")
    options = parser.parse_args(arguments)
    if options.max_new_tokens is not None and options.max_new_tokens < 1:
        raise UsageError(f"--max_new_tokens: found {options.max_new_tokens}, expected 1 or more")
    from tf_bert.tokenization.vocab import Vocabulary, extend_vocabulary

    base, other = (Vocabulary.load(Path(path)) for path in (options.base, options.other))
    extended = extend_vocabulary(base, other, options.max_new_tokens)
    extended.save(Path(options.output))
    print(f"{options.output}: {len(base):,} tokens of {options.base}, {len(extended) - len(base):,} new ones")


def _prepare(arguments: Sequence[str]) -> None:
    from tf_bert.config import PrepareConfig

    config = _read_config(PrepareConfig, "prepare", arguments)
    from tf_bert.corpus.read_report import tell_skipped
    from tf_bert.pretraining_data.engines import open_engine

    with open_engine(config) as (config, executor):
        # TensorFlow comes with it: a cluster that is not there is told before.
        from tf_bert.pretraining_data.build import build
        from tf_bert.run_log import byte_progress

        manifest = build(config, executor, progress=byte_progress)
    if manifest is None:  # the share of an array job's task is done, others are not
        return
    if skipped := tell_skipped(manifest.skipped):
        print(f"{config.output_dir}: {skipped}")
    if manifest.dropped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in manifest.dropped.items())
        print(f"{config.output_dir}: of {manifest.documents:,} documents were left out: {reasons}")
    for name, split in manifest.splits.items():
        print(
            f"{config.output_dir}: {name}: {split.counts.documents:,} documents, {split.counts.examples:,} examples in "
            f"{split.records:,} rows of {manifest.max_seq_length} tokens, {split.fill:.1%} full"
        )


def _pretrain(arguments: Sequence[str]) -> None:
    from tf_bert.config import PretrainConfig

    def complete(values: Mapping[str, Any]) -> dict[str, Any]:
        if not values.get("init"):  # without a source, nothing of TensorFlow is needed to read the settings
            return dict(values)
        from tf_bert.initial_weights import complete_settings

        return complete_settings(values)

    start, arguments = _take_start_options(arguments)
    config = _read_config(PretrainConfig, "pretrain", arguments, dict(_START_OPTIONS.values()), complete)
    ranks = int(start["ranks"] or 1)
    if start["dry_run"]:
        from tf_bert.preflight import Outlook, preflight

        preflight(config, Outlook(ranks, start["tokens_per_second"], start["price"]))
        return
    if ranks > 1:
        _run_local_ranks(ranks, "pretrain", arguments)
        return
    from tf_bert.pretraining import pretrain

    pretrain(config, elastic=start["elastic"])


def _run_local_ranks(ranks: int, command: str, arguments: Sequence[str]) -> None:
    from tf_bert.local_ranks import run_local_ranks

    if code := run_local_ranks(ranks, [sys.executable, "-m", "tf_bert.cli", command, *arguments]):
        raise OtherRankFailed(code)


# Options of `pretrain` about this start, not about the run: how they are written, and what they do.
_START_OPTIONS = {
    "ranks": ("ranks N", "Start N ranks on this machine (1)."),
    "elastic": ("elastic", "Under horovodrun --min-np: go on with the ranks that are left when others are lost."),
    "dry_run": ("dry-run", "Check settings, data and machine, show what the run would take, and start nothing."),
    "tokens_per_second": ("tokens-per-second X", "With --dry-run: the speed of all ranks together, for the time."),
    "price": ("price X", "With --dry-run: what a device costs an hour, for the cost."),
}


_START_NUMBERS = {
    "--ranks": (r"[1-9]\d{0,5}", "how many ranks to start on this machine, such as --ranks 2"),
    "--tokens-per-second": (_NUMBER, "a speed above 0, such as --tokens-per-second 50000"),
    "--price": (_NUMBER, "a price above 0, such as --price 2.5"),
}


def _take_start_options(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The values of `_START_OPTIONS`, None where one is not given, and the other arguments."""
    options, others = _take_options(arguments, ("--dry-run", "--elastic"), tuple(_START_NUMBERS))
    if not options["dry_run"] and (options["tokens_per_second"] or options["price"]):
        raise UsageError("--tokens-per-second and --price are about what a run would take; add --dry-run")
    return options, others


def _take_options(
    arguments: Sequence[str], switches: Sequence[str], numbers: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """The values of switches and of some of `_START_NUMBERS`, and the arguments that are neither."""

    def number(option: str) -> Callable[[str], float]:
        def read(text: str) -> float:
            if not re.fullmatch(_START_NUMBERS[option][0], text) or not float(text):
                raise ValueError(text)
            return float(text)

        return read

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for switch in switches:
        parser.add_argument(switch, action="store_true")
    for option in numbers:
        parser.add_argument(option, type=number(option))
    try:
        options, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        option = str(error.argument_name)
        known = _START_NUMBERS.get(option)
        raise UsageError(f"{option}: expected {known[1]}" if known else str(error)) from None
    return vars(options), others


def _config_of_rank(cls: Any, command: str, arguments: Sequence[str]) -> Any:
    """The configuration; None where --ranks asked for several ranks, which have run the command by now."""
    start, arguments = _take_options(arguments, (), ("--ranks",))
    config = _read_config(cls, command, arguments, dict([_START_OPTIONS["ranks"]]))
    if (ranks := int(start["ranks"] or 1)) > 1:
        _run_local_ranks(ranks, command, arguments)
        return None
    return config


def _finetune(arguments: Sequence[str]) -> None:
    from tf_bert.config import FinetuneConfig

    if config := _config_of_rank(FinetuneConfig, "finetune", arguments):
        from tf_bert.finetuning.run import finetune

        finetune(config)


def _glue(arguments: Sequence[str]) -> None:
    from tf_bert.config import GlueConfig

    if config := _config_of_rank(GlueConfig, "glue", arguments):
        from tf_bert.finetuning.glue import glue

        glue(config)


def _sweep(arguments: Sequence[str]) -> None:
    from tf_bert.config import SweepConfig

    if config := _config_of_rank(SweepConfig, "sweep", arguments):
        from tf_bert.finetuning.sweep import sweep

        sweep(config)


def _evaluate(arguments: Sequence[str]) -> None:
    parser = _parser("evaluate", "Show the metrics of a finetuned model on files with labels.")
    parser.add_argument("model_dir", help="a finetuned model's directory, or that of its run")
    parser.add_argument("--data", required=True, help="a file, the directory of the task's files, or one that holds it")
    parser.add_argument("--split", nargs="+", default=(), help="e.g. dev (default: all that the task is evaluated on)")
    parser.add_argument("--page", help="an HTML file to write with the confusion matrix and the worst errors")
    options = parser.parse_args(arguments)
    from tf_bert.finetuning.run import evaluate

    for line in evaluate(options.model_dir, options.data, options.split, options.page):
        print(line)


def _predict(arguments: Sequence[str]) -> None:
    parser = _parser("predict", "Let a finetuned model answer for every example of a file or of standard input.")
    parser.add_argument("model_dir", help="a finetuned model's directory, or that of its run")
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
    from tf_bert.finetuning.run import format_predictions, predict, write_predictions

    predictions = predict(options.model_dir, options.input or sys.stdin.buffer, options.split, options.batch_size)
    if output:
        print(f"{output}: {write_predictions(predictions, output, file_format):,} predictions")
        return
    for line in format_predictions(predictions, file_format):
        print(line, flush=True)


def _fetch_glue(arguments: Sequence[str]) -> None:
    from tf_bert.config import FetchGlueConfig

    config = _read_config(FetchGlueConfig, "fetch glue", arguments)
    from tqdm import tqdm

    from tf_bert.finetuning.fetch import fetch_glue
    from tf_bert.run_log import byte_progress

    for fetched in fetch_glue(config, byte_progress, lambda line: tqdm.write(line, file=sys.stderr)):
        print(fetched, flush=True)
    print(f"{config.output_dir}: complete")


def _fetch_wikipedia(arguments: Sequence[str]) -> None:
    from tf_bert.config import FetchWikipediaConfig

    config = _read_config(FetchWikipediaConfig, "fetch wikipedia", arguments)
    from tqdm import tqdm

    from tf_bert.corpus.fetch import download, find_dump
    from tf_bert.run_log import byte_progress

    def notify(line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    dump = find_dump(config, notify)
    print(dump, flush=True)
    if not config.list:
        download(dump, config, byte_progress, notify)
        print(f"{config.output_dir}: complete, every file's SHA-1 checked")


def _inspect(arguments: Sequence[str]) -> None:
    parser = _parser("inspect", "Show a shard, a data directory, a checkpoint, a run or a model directory.")
    parser.add_argument("path", help="a .tfrecord shard or a directory that tf-bert wrote")
    parser.add_argument("--rows", type=int, default=3, help="rows of a shard to show (default: 3)")
    parser.add_argument("--png", help="a picture to write of a data directory's counts and lengths")
    options = parser.parse_args(arguments)
    from tf_bert.inspection import draw_data_directory, inspect

    print(inspect(options.path, options.rows))
    if options.png:
        print(f"\nPicture: {draw_data_directory(options.path, options.png)}")


def _convert(arguments: Sequence[str]) -> None:
    parser = _parser("convert", "Turn the weights of one tool into the files of another.")
    parser.add_argument("source", help="a model directory, a checkpoint of google-research or Model Garden, an archive")
    parser.add_argument("dest", help="the directory to write")
    parser.add_argument("--to", required=True, help="hf (a model directory), google (TF1) or model-garden (TF2)")
    parser.add_argument("--vocab", help="a vocabulary to put in its place; tokens that both have keep their rows")
    options = parser.parse_args(arguments)
    from tf_bert.interop.convert import convert

    for line in convert(options.source, options.dest, options.to, options.vocab):
        print(line)


def _fill_mask(arguments: Sequence[str]) -> None:
    parser = _parser("fill-mask", "Guess the words under [MASK].")
    parser.add_argument("model_dir", help="a model directory, e.g. runs/bert-tiny-demo/model")
    parser.add_argument("text", help='e.g. "Paris is the [MASK] of France."')
    parser.add_argument("--top", type=int, default=5, help="guesses per mask (default: 5)")
    options = parser.parse_args(arguments)
    from tf_bert.serving.predict import fill_mask

    for line in fill_mask(options.model_dir, options.text, options.top):
        print(line)


def _embed(arguments: Sequence[str]) -> None:
    parser = _parser("embed", "Turn sentences, one a line on standard input, into vectors, one a line of output.")
    parser.add_argument("model_dir", help="a model directory; sentence-transformers' files in it set the defaults")
    parser.add_argument("--pooling", help="mean, cls or pooler (default: as the directory says, or else mean)")
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="scale vectors to length 1 (default: as the directory says, or else not)",
    )
    parser.add_argument(
        "--max_seq_length", type=int, help="tokens that are read of a sentence (default: as the directory says)"
    )
    parser.add_argument("--batch_size", type=int, default=64, help="sentences in one forward pass (default: 64)")
    parser.add_argument("--output", help="a file to write: .npy, or .jsonl (default: JSON lists on standard output)")
    options = parser.parse_args(arguments)
    from tf_bert.serving.embed import EmbeddingOptions, embed_lines

    how = EmbeddingOptions(options.pooling, options.normalize, options.max_seq_length, options.batch_size)
    for line in embed_lines(options.model_dir, sys.stdin.buffer, options.output, how):
        print(line)


def _export(arguments: Sequence[str]) -> None:
    parser = _parser("export", "Turn a model directory into a SavedModel for TensorFlow Serving that takes raw text.")
    parser.add_argument(
        "model_dir", help="a finetuned model's directory or that of its run, a pretrained model, an encoder"
    )
    parser.add_argument("export_dir", help="the directory of all versions; a new one is written into it")
    parser.add_argument(
        "--precision", default="float32", help="float32, bfloat16, or int8: weights of a quarter of the size (float32)"
    )
    parser.add_argument("--version", help="number of the version (default: the one after the highest that is there)")
    parser.add_argument("--pooling", help="mean or cls, for vectors (default: as the directory says, or else mean)")
    parser.add_argument("--onnx", action="store_true", help="also write the scores of token ids as model.onnx")
    options = parser.parse_args(arguments)
    from tf_bert.serving.export import export, megabytes

    directory = export(
        options.model_dir,
        options.export_dir,
        version=options.version,
        precision=options.precision,
        pooling=options.pooling,
        onnx=options.onnx,
        notify=print,
    )
    print(f"{directory}: {megabytes(directory):,.1f} MB; {directory / 'model_card.md'} tells what it is")


def _serve(arguments: Sequence[str]) -> None:
    from tf_bert.config import ServeConfig

    if arguments and not arguments[0].startswith("-"):
        arguments = ["--export_dir", *arguments]
    config = _read_config(ServeConfig, "serve", arguments)
    from tf_bert.serving.server.app import serve

    serve(config)


COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], None]]] = {
    "fetch wikipedia": ("download a Wikipedia's articles, resumably and checked", _fetch_wikipedia),
    "fetch glue": ("download the files of GLUE's tasks, checked", _fetch_glue),
    "vocab train": ("train a WordPiece or SentencePiece vocabulary from a corpus", _vocab_train),
    "vocab extend": ("add the tokens of a corpus to a trained model's vocabulary", _vocab_extend),
    "vocab report": ("show how one or two vocabularies fit a corpus", _vocab_report),
    "prepare": ("turn a corpus into TFRecord shards of packed rows", _prepare),
    "pretrain": ("pretrain BERT; run again, it goes on where it was", _pretrain),
    "finetune": ("finetune a pretrained model on a task; run again, it goes on", _finetune),
    "glue": ("finetune on all of GLUE with several seeds: a table and the zip", _glue),
    "sweep": ("finetune with many settings, and find the best", _sweep),
    "evaluate": ("show a finetuned model's metrics on files with labels", _evaluate),
    "predict": ("let a finetuned model answer for a file or standard input", _predict),
    "convert": ("turn weights of one tool into the files of another", _convert),
    "inspect": ("show a shard, a data directory, a checkpoint or a model directory", _inspect),
    "fill-mask": ("guess the words under [MASK] with a pretrained model", _fill_mask),
    "embed": ("turn sentences into vectors with a model directory", _embed),
    "export": ("turn a model directory into a SavedModel for TensorFlow Serving", _export),
    "serve": ("try an export: a small local server, with a page to type at", _serve),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit code (0 done, 1 failed, 2 wrong usage or configuration)."""
    # TensorFlow's start-up notes would bury the one line that matters. A value the user has set stays.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words == ["--version"]:
        from tf_bert import __version__

        print(f"tf-bert {__version__}")
        return 0
    try:
        command, arguments = _find_command(words)
    except UsageError as error:
        print(f"tf-bert: {error}", file=sys.stderr)
        return 2
    return _report_errors(command, lambda: COMMANDS[command][1](arguments))


def _report_errors(command: str, run: Callable[[], None]) -> int:
    def failed(message: object, code: int) -> int:
        print(f"tf-bert {command}: {message}", file=sys.stderr)
        return code

    try:
        run()
        return 0
    except UsageError as error:
        return failed(error, 2)
    except InputError as error:
        return failed(error, 1)
    except OtherRankFailed as error:
        return error.exit_code
    except KeyboardInterrupt:
        return failed("interrupted; nothing half-written is left in use: the same command starts again or goes on", 1)
    except BrokenPipeError:  # the reader of our output has left, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.strerror is None:
            raise
        return failed(f"{error.filename or 'writing'}: {error.strerror}", 1)


def _find_command(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    for length in (2, 1):
        if (command := " ".join(words[:length])) in COMMANDS:
            return command, words[length:]
    import difflib

    tried = " ".join(words[:2]) if words[0] in {name.split()[0] for name in COMMANDS} else words[0]
    near = difflib.get_close_matches(tried, COMMANDS, n=1)
    suggestion = f"did you mean '{near[0]}'?" if near else f"known commands: {', '.join(COMMANDS)}"
    raise UsageError(f"unknown command '{tried}'; {suggestion}")


def _overview() -> str:
    commands = "\n".join(f"  {name:<17}{text}" for name, (text, _) in COMMANDS.items())
    return (
        "usage: tf-bert COMMAND [options]\n\n"
        "Pretrain BERT on your own corpus, with TensorFlow and Keras 3.\n\n"
        f"commands:\n{commands}\n\n"
        "tf-bert COMMAND --help tells a command's options."
    )


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"tf-bert {command}", description=description)


# --- commands whose options are the fields of a configuration -----------------------------------------------------


def _read_config(
    cls: Any,
    command: str,
    arguments: Sequence[str],
    options: Mapping[str, str] | None = None,
    complete: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
) -> Any:
    from tf_bert import config

    if "-h" in arguments or "--help" in arguments:
        print(_config_help(cls, command, options or {}))
        raise SystemExit(0)
    switches = {field.key for field in config.describe_fields(cls) if field.is_switch}
    values = parse_overrides(arguments, switches)
    path = values.pop("config", None)
    return config.load(cls, path, values, complete)


def parse_overrides(arguments: Sequence[str], switches: Collection[str] = ()) -> dict[str, Any]:
    """`--field value`, `--field=value` and `--field value value` as a mapping; dashes in names read as underscores.

    Args:
      arguments: the words after the command.
      switches: fields that are true when they stand without a value.

    Raises:
      UsageError: if a value has no field or a field no value.
    """
    values: dict[str, list[str]] = {}
    current: list[str] | None = None
    for argument in arguments:
        if argument.startswith("--"):
            name, has_value, value = argument[2:].partition("=")
            current = values.setdefault(name.replace("-", "_"), [])
            if has_value:
                current.append(value)
        elif current is None:
            raise UsageError(f"found '{argument}', expected --FIELD VALUE; --help lists the fields")
        else:
            current.append(argument)
    for name, found in values.items():
        if not found and name in switches:
            found.append("true")
        if not found:
            raise UsageError(f"--{name}: its value is missing; write --{name} VALUE")
    return {name: _plain(found) for name, found in values.items()}


def _plain(found: list[str]) -> Any:
    if len(found) > 1:
        return found
    return None if found[0] == "null" else found[0]


def _config_help(cls: Any, command: str, options: Mapping[str, str]) -> str:
    import textwrap

    from tf_bert.config import describe_fields

    lines = [f"usage: {CONFIG_COMMAND_USAGE.format(command=command)}", "", cls.__doc__, ""]
    lines += [f"  --{option}\n      {text}\n" for option, text in options.items()]
    lines += ["A field on the command line wins over the YAML file. Fields, with their defaults:", ""]
    for field in describe_fields(cls):
        lines.append(f"  --{field.key} ({field.default})")
        lines += textwrap.wrap(field.doc, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
