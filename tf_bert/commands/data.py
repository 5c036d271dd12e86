"""Commands about text and vocabularies: fetching, preparing, looking at what was made."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tf_bert.commands.arguments import parser_of, read_config
from tf_bert.errors import InputError, UsageError


def fetch_wikipedia(arguments: Sequence[str]) -> None:
    from tf_bert.config import FetchWikipediaConfig

    config = read_config(FetchWikipediaConfig, "fetch wikipedia", arguments)
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


def fetch_glue(arguments: Sequence[str]) -> None:
    from tf_bert.config import FetchGlueConfig

    config = read_config(FetchGlueConfig, "fetch glue", arguments)
    from tqdm import tqdm

    from tf_bert.finetuning.fetch import fetch_glue
    from tf_bert.run_log import byte_progress

    for fetched in fetch_glue(config, byte_progress, lambda line: tqdm.write(line, file=sys.stderr)):
        print(fetched, flush=True)
    print(f"{config.output_dir}: complete")


def vocab_train(arguments: Sequence[str]) -> None:
    from tf_bert.config import VocabTrainConfig

    config = read_config(VocabTrainConfig, "vocab train", arguments)
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


def vocab_extend(arguments: Sequence[str]) -> None:
    parser = parser_of("vocab extend", "Add the tokens of a corpus's vocabulary to that of a trained model.")
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


def vocab_report(arguments: Sequence[str]) -> None:
    from tf_bert.config import VocabReportConfig

    config = read_config(VocabReportConfig, "vocab report", arguments)
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


def prepare(arguments: Sequence[str]) -> None:
    from tf_bert.config import PrepareConfig

    config = read_config(PrepareConfig, "prepare", arguments)
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


def inspect(arguments: Sequence[str]) -> None:
    parser = parser_of("inspect", "Show a shard, a data directory, a checkpoint, a run or a model directory.")
    parser.add_argument("path", help="a .tfrecord shard or a directory that tf-bert wrote")
    parser.add_argument("--rows", type=int, default=3, help="rows of a shard to show (default: 3)")
    parser.add_argument("--png", help="a picture to write of a data directory's counts and lengths")
    options = parser.parse_args(arguments)
    from tf_bert.inspection import draw_data_directory, inspect

    print(inspect(options.path, options.rows))
    if options.png:
        print(f"\nPicture: {draw_data_directory(options.path, options.png)}")
