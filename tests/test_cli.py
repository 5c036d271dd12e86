"""The command line: help, wrong words, exit codes, and one line for every mistake."""

import signal
import subprocess
import sys
import time

import pytest

from tf_bert import cli
from tf_bert.commands.arguments import parse_overrides
from tf_bert.errors import UsageError


def run(*words, **kwargs):
    """The command as a user starts it."""
    return subprocess.run([sys.executable, "-m", "tf_bert.cli", *words], capture_output=True, text=True, **kwargs)


def test_help_names_every_command_and_imports_none_of_their_work():
    script = "import sys; from tf_bert import cli; code = cli.main(['--help']); print(code, *sorted(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for command in cli.COMMANDS:
        assert f"\n  {command} " in printed
    code, *modules = printed.splitlines()[-1].split()
    assert code == "0"
    heavy = {"tensorflow", "keras", "numpy", "pydantic", "yaml", "tf_bert.config"}
    assert heavy & set(modules) == set()


@pytest.mark.parametrize("command", ["vocab train", "vocab report", "prepare", "pretrain"])
def test_help_of_a_command_documents_every_field(command, capsys):
    from tf_bert import config

    classes = {
        "vocab train": config.VocabTrainConfig,
        "vocab report": config.VocabReportConfig,
        "prepare": config.PrepareConfig,
        "pretrain": config.PretrainConfig,
    }
    with pytest.raises(SystemExit) as caught:
        cli.main([*command.split(), "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    for field in config.describe_fields(classes[command]):
        assert f"--{field.key} ({field.default}) {field.doc}" in printed


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["pretrian"], 2, "tf-bert: unknown command 'pretrian'; did you mean 'pretrain'?"),
        (["vocab", "trian"], 2, "tf-bert: unknown command 'vocab trian'; did you mean 'vocab train'?"),
        (["xyzzy"], 2, "tf-bert: unknown command 'xyzzy'; known commands: "),
        (["pretrain", "file.yaml"], 2, "tf-bert pretrain: found 'file.yaml', expected --FIELD VALUE"),
        (["pretrain", "--config"], 2, "tf-bert pretrain: --config: its value is missing"),
        (["pretrain", "--config", "absent.yaml"], 1, "tf-bert pretrain: absent.yaml: cannot be read: No such file"),
        (
            ["pretrain", "--model.hiden-size", "3"],
            2,
            "unknown key 'model.hiden_size'; did you mean 'model.hidden_size'?",
        ),
        (["prepare", "--output_dir", "x"], 2, "tf-bert prepare: command line: 'input' is required and missing"),
        (["prepare", "--input", "absent.txt"], 1, "absent.txt"),
        (["fill-mask", "absent", "no mask"], 2, "tf-bert fill-mask: the text has no [MASK]"),
        (
            ["fill-mask", "absent", "a [MASK]"],
            1,
            "tf-bert fill-mask: absent: no such directory; expected a model direc",
        ),
        (["inspect", "absent"], 1, "tf-bert inspect: absent: no such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(words, code, message, tmp_path):
    done = run(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_the_first_word_of_two_shows_its_commands(capsys):
    assert [cli.main(["vocab", "--help"]), cli.main(["vocab"])] == [0, 2]
    shown = capsys.readouterr().out.split("commands:")[1].splitlines()
    assert [line.split()[:2] for line in shown[1:4]] == [["vocab", word] for word in ("train", "extend", "report")]
    assert shown[4] == ""


def test_no_command_shows_the_overview_and_is_wrong_usage(capsys):
    assert cli.main([]) == 2
    assert "usage: tf-bert COMMAND" in capsys.readouterr().out


def test_version(capsys):
    from tf_bert import __version__

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tf-bert {__version__}\n"


def test_overrides_take_one_value_several_or_an_equals_sign():
    assert parse_overrides(["--input", "a", "b", "--max-seq-length=64", "--training.jit_compile", "null"]) == {
        "input": ["a", "b"],
        "max_seq_length": "64",
        "training.jit_compile": None,
    }
    with pytest.raises(UsageError, match="--seed: its value is missing; write --seed VALUE"):
        parse_overrides(["--seed", "--input", "a"])


def test_a_reader_that_leaves_early_is_no_traceback():
    done = subprocess.run(
        f"{sys.executable} -m tf_bert.cli prepare --help | true", shell=True, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_one_line_and_leaves_nothing_that_counts_as_done(tmp_path, wikipedia_dump):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n")
    words = ["prepare", "--input", str(wikipedia_dump), "--output_dir", "data"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tf_bert.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    while not list(tmp_path.glob("data/_work/spill-*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, complaint = process.communicate()
    assert process.returncode == 1 and printed == ""
    assert complaint.splitlines() == [
        "tf-bert prepare: interrupted; nothing half-written is left in use: the same command starts again or goes on"
    ]
    assert not (tmp_path / "data" / "manifest.json").exists()
    assert run(*words, cwd=tmp_path).returncode == 0
    assert (tmp_path / "data" / "manifest.json").exists()
