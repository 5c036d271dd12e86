"""Commands about models that are there: converting, trying, exporting, serving."""

import argparse
import sys
from collections.abc import Sequence

from tf_bert.commands.arguments import parser_of, read_config
from tf_bert.errors import UsageError


def convert(arguments: Sequence[str]) -> None:
    parser = parser_of("convert", "Turn the weights of one tool into the files of another.")
    parser.add_argument("source", help="a model directory, a checkpoint of google-research or Model Garden, an archive")
    parser.add_argument("dest", help="the directory to write")
    parser.add_argument("--to", required=True, help="hf (a model directory), google (TF1) or model-garden (TF2)")
    parser.add_argument("--vocab", help="a vocabulary to put in its place; tokens that both have keep their rows")
    options = parser.parse_args(arguments)
    from tf_bert.interop.convert import convert

    for line in convert(options.source, options.dest, options.to, options.vocab):
        print(line)


def fill_mask(arguments: Sequence[str]) -> None:
    parser = parser_of("fill-mask", "Guess the words under [MASK].")
    parser.add_argument("model_dir", help="a model directory, e.g. runs/bert-tiny-demo/model")
    parser.add_argument("text", help='e.g. "Paris is the [MASK] of France."')
    parser.add_argument("--top", type=int, default=5, help="guesses per mask (default: 5)")
    options = parser.parse_args(arguments)
    from tf_bert.serving.predict import fill_mask

    for line in fill_mask(options.model_dir, options.text, options.top):
        print(line)


def embed(arguments: Sequence[str]) -> None:
    parser = parser_of("embed", "Turn sentences, one a line on standard input, into vectors, one a line of output.")
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


def export(arguments: Sequence[str]) -> None:
    parser = parser_of("export", "Turn a model directory into a SavedModel for TensorFlow Serving that takes raw text.")
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
    parser.add_argument(
        "--measure",
        metavar="DATA",
        help="a file with labels or the directory of the task's files: the card gets the metrics on them, and those in "
        "float32 beside them",
    )
    parser.add_argument(
        "--split", help="which of the task's files --measure is (default: the first it is evaluated on)"
    )
    options = parser.parse_args(arguments)
    if options.split and not options.measure:
        raise UsageError("--split: says which files are measured; add --measure DATA")
    from tf_bert.finetuning.export_predictor import measure_on_files
    from tf_bert.serving.export import export, megabytes

    directory = export(
        options.model_dir,
        options.export_dir,
        version=options.version,
        precision=options.precision,
        pooling=options.pooling,
        onnx=options.onnx,
        measure=measure_on_files(options.model_dir, options.measure, options.split) if options.measure else None,
        notify=print,
    )
    print(f"{directory}: {megabytes(directory):,.1f} MB; {directory / 'model_card.md'} tells what it is")


def serve(arguments: Sequence[str]) -> None:
    from tf_bert.config import ServeConfig

    if arguments and not arguments[0].startswith("-"):
        arguments = ["--export_dir", *arguments]
    config = read_config(ServeConfig, "serve", arguments)
    from tf_bert.serving.server.app import serve

    serve(config)
