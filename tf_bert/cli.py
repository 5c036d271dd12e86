"""The `tf-bert` command: finds the subcommand, runs it, and turns its errors into a line and an exit code.

What a subcommand does is in `tf_bert.commands`; each imports its work when it runs, so that `--help` is instant.
"""

import os
import sys
from collections.abc import Callable, Sequence

from tf_bert.commands import azure, azure_rehearsal, data, training, weights
from tf_bert.errors import InputError, OtherRankFailed, UsageError

COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], None]]] = {
    "fetch wikipedia": ("download a Wikipedia's articles, resumably and checked", data.fetch_wikipedia),
    "fetch glue": ("download the files of GLUE's tasks, checked", data.fetch_glue),
    "vocab train": ("train a WordPiece or SentencePiece vocabulary from a corpus", data.vocab_train),
    "vocab extend": ("add the tokens of a corpus to a trained model's vocabulary", data.vocab_extend),
    "vocab report": ("show how one or two vocabularies fit a corpus", data.vocab_report),
    "prepare": ("turn a corpus into TFRecord shards of packed rows", data.prepare),
    "pretrain": ("pretrain BERT; run again, it goes on where it was", training.pretrain),
    "finetune": ("finetune a pretrained model on a task; run again, it goes on", training.finetune),
    "glue": ("finetune on all of GLUE with several seeds: a table and the zip", training.glue),
    "sweep": ("finetune with many settings, and find the best", training.sweep),
    "evaluate": ("show a finetuned model's metrics on files with labels", training.evaluate),
    "predict": ("let a finetuned model answer for a file or standard input", training.predict),
    "convert": ("turn weights of one tool into the files of another", weights.convert),
    "inspect": ("show a shard, a data directory, a checkpoint or a model directory", data.inspect),
    "fill-mask": ("guess the words under [MASK] with a pretrained model", weights.fill_mask),
    "embed": ("turn sentences into vectors with a model directory", weights.embed),
    "export": ("turn a model directory into a SavedModel for TensorFlow Serving", weights.export),
    "serve": ("try an export: a small local server, with a page to type at", weights.serve),
    "azure submit": ("send a job or a pipeline to Azure Machine Learning", azure.submit),
    "azure sweep": ("send a sweep to Azure, or show its runs, best first", azure.sweep),
    "azure status": ("tell how the newest run of a job on Azure is doing", azure.status),
    "azure logs": ("show the log of the newest run of a job on Azure", azure.logs),
    "azure download": ("copy what a run on Azure has written to this machine", azure.download),
    "azure cancel": ("end the newest run of a job on Azure", azure.cancel),
    "azure register": ("make a model of what a run on Azure has written", azure.register),
    "azure deploy": ("put an export behind an endpoint on Azure", azure.deploy),
    "azure rehearse": ("run a job on this machine, as Azure would", azure_rehearsal.rehearse),
}


GROUPS = {name.split()[0] for name in COMMANDS if " " in name}
"""First words of commands that have two."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit code (0 done, 1 failed, 2 wrong usage or configuration)."""
    # TensorFlow's start-up notes would bury the one line that matters. A value the user has set stays.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    words = list(sys.argv[1:] if argv is None else argv)
    group = words[0] if words and words[0] in GROUPS else None
    if words[bool(group) :][:1] in ([], ["-h"], ["--help"]):
        print(_overview(group))
        return 0 if len(words) > bool(group) else 2
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

    tried = " ".join(words[:2]) if words[0] in GROUPS else words[0]
    near = difflib.get_close_matches(tried, COMMANDS, n=1)
    suggestion = f"did you mean '{near[0]}'?" if near else f"known commands: {', '.join(COMMANDS)}"
    raise UsageError(f"unknown command '{tried}'; {suggestion}")


def _overview(group: str | None) -> str:
    """All commands, or those of a group."""
    named = {name: text for name, (text, _) in COMMANDS.items() if group in (None, name.split()[0])}
    commands = "\n".join(f"  {name:<17}{text}" for name, text in named.items())
    return (
        "usage: tf-bert COMMAND [options]\n\n"
        "Pretrain BERT on your own corpus, finetune it and serve it, with TensorFlow and Keras 3.\n\n"
        f"commands:\n{commands}\n\n"
        "tf-bert COMMAND --help tells a command's options."
    )


if __name__ == "__main__":
    sys.exit(main())
