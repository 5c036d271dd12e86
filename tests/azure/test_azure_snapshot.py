"""What would be uploaded: the same files as the SDKs would take, within Azure's limits, and nothing secret."""

import base64
import hashlib
import subprocess
import sys
from pathlib import Path

import golden_files
import pytest
import yaml

from tf_bert import cli
from tf_bert.azure import snapshot
from tf_bert.azure.secret_scan import find_secret
from tf_bert.azure.snapshot import list_snapshot, refuse_secrets
from tf_bert.errors import InputError

FILES = [
    "a.py",
    "b.log",
    "keep.log",
    "build/x.o",
    "build/y.py",
    "src/build/z.py",
    "src/a.py",
    "src/a.pyc",
    "src/deep/er/c.log",
    "src/deep/keep.log",
    "data/one.bin",
    "data/sub/two.bin",
    "with space/d.txt",
    "ünïcode.txt",
]
IGNORE = ["# a comment", "", "*.log", "/build/", "*.py[co]", "data/*", "src/**/er/", "with\\ space/", "*.bin"]


def fill(directory, ignore, files=FILES, name=".amlignore"):
    for file in files:
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_text(file)
    (directory / name).write_text("\n".join(ignore) + "\n", encoding="utf-8")


def of_v2(directory):
    from azure.ai.ml._utils._asset_utils import get_ignore_file, get_upload_files_from_folder

    return sorted(path for _, path in get_upload_files_from_folder(directory, ignore_file=get_ignore_file(directory)))


def of_v1(directory):
    from azureml._base_sdk_common.merkle_tree import create_merkletree
    from azureml._project.ignore_file import get_project_ignore_file

    def walk(node, path):
        for child in node.children:
            inner = f"{path}{child.name}"
            yield from [inner] if child.is_file() else walk(child, f"{inner}/")

    return sorted(walk(create_merkletree(str(directory), get_project_ignore_file(str(directory)).is_file_excluded), ""))


@pytest.mark.parametrize(
    "ignore", [[], IGNORE, ["*", "!*.py"], ["/src", "!/a.py"], ["build"]], ids=["none", "many", "not", "folder", "name"]
)
def test_the_files_are_those_that_both_sdks_take(tmp_path, ignore):
    fill(tmp_path, ignore)
    found = [path.as_posix() for path in list_snapshot(tmp_path)]
    assert found == of_v2(tmp_path)
    if not any(line.startswith("!") for line in ignore):  # v1 leaves out a folder before it looks what is in it
        assert found == of_v1(tmp_path)


def test_amlignore_goes_before_gitignore(tmp_path):
    fill(tmp_path, ["*.log"], ["a.py", "b.log", "c.txt"], ".gitignore")
    assert [str(path) for path in list_snapshot(tmp_path)] == [".gitignore", "a.py", "c.txt"]
    (tmp_path / ".amlignore").write_text("*.txt\n")
    assert [str(path) for path in list_snapshot(tmp_path)] == [".amlignore", ".gitignore", "a.py", "b.log"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    fill(tmp_path, [], ["code/a.py"])
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b.py").write_text("b")
    (tmp_path / "code" / "linked").symlink_to(tmp_path / "outside", target_is_directory=True)
    (tmp_path / "code" / "self").symlink_to(tmp_path / "code", target_is_directory=True)
    assert [str(path) for path in list_snapshot(tmp_path / "code")] == ["a.py", "linked/b.py"]


def test_this_checkout_can_be_uploaded():
    files = list_snapshot(golden_files.ROOT)
    for name in ("docker/gpu.Dockerfile", "requirements.lock", "tf_bert/cli.py", "configs/azureml-bert-base.yaml"):
        assert Path(name) in files
    assert not {path.parts[0] for path in files} & {".git", ".venv", "tests", "runs", "docs"}
    refuse_secrets(golden_files.ROOT, files)


def test_a_folder_over_the_limit_names_its_largest_files(tmp_path):
    fill(tmp_path, [], ["a.py", "weights/large.bin", "weights/larger.bin"])
    for name, megabytes in (("large", 120), ("larger", 200)):
        with (tmp_path / f"weights/{name}.bin").open("wb") as file:
            file.truncate(megabytes * 2**20)
    with pytest.raises(InputError) as caught:
        list_snapshot(tmp_path)
    assert str(caught.value).startswith(
        f"{tmp_path}: has 320.0 MB to upload, but Azure takes 300.0 MB; the largest: weights/larger.bin (200.0 MB), "
        "weights/large.bin (120.0 MB), "
    )


def test_too_many_files_name_the_folders_they_are_in(tmp_path):
    fill(tmp_path, [], [f"data/{number}.txt" for number in range(1998)] + ["a.py"])
    assert len(list_snapshot(tmp_path)) == 2000 == snapshot.MAX_FILES  # with .amlignore itself
    (tmp_path / "b.py").touch()
    with pytest.raises(InputError) as caught:
        list_snapshot(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: has 2,001 files to upload, but Azure takes 2,000; most are in: data (1,998), . (3); list what "
        "the job does not need in .amlignore"
    )


def test_nothing_to_upload(tmp_path):
    fill(tmp_path, ["*"])
    with pytest.raises(InputError, match=r"has nothing to upload; look at \.amlignore and \.gitignore"):
        list_snapshot(tmp_path)


def random_text(alphabet, length, seed):
    """Characters that no person has chosen, the same every time; so that this file holds no secret itself."""
    numbers = b"".join(hashlib.sha256(f"{seed} {block}".encode()).digest() for block in range(1 + length // 32))
    return "".join(alphabet[number % len(alphabet)] for number in numbers[:length])


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
KEY = base64.b64encode(hashlib.sha512(b"key").digest()).decode()
JWT = ".".join("eyJ" + random_text(LETTERS, 40, part) for part in (1, 2)) + "." + random_text(LETTERS, 43, 3)
SECRETS = {
    "a storage account's key": f"DefaultEndpointsProtocol=https;AccountName=bert;Account{'Key'}={KEY};EndpointSuffix=x",
    "an access key of a connection string": f"Endpoint=sb://x.net/;SharedAccess{'Key'}={KEY[:43]}=",
    "a shared access signature (SAS)": f"https://bert.blob.core.windows.net/data?sv=2024-11-04&{'sig'}={KEY[:43]}%3D",
    "a client secret of Microsoft Entra": random_text(LETTERS, 3, 4) + "8" + "Q~" + random_text(LETTERS, 34, 5),
    "an access key of AWS": "AKIA" + random_text(LETTERS[:26], 16, 6),
    "a token of GitHub": "ghp" + "_" + random_text(LETTERS, 36, 7),
    "a token of Hugging Face": "hf" + "_" + random_text(LETTERS, 34, 8),
    "a key of Google's services": "AIza" + random_text(LETTERS, 35, 9),
    "a token of Slack": "xoxb" + "-" + random_text(LETTERS, 24, 10),
    "a signed token (JWT)": JWT,
    "a password in an address": f"postgresql://bert:{random_text(LETTERS, 12, 11)}@db.example.org/notes",
    "a password or key": f'{{"client_{"secret"}": "{random_text(LETTERS, 20, 12)}1a"}}',
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_found_on_its_line_and_not_shown(tmp_path, kind):
    (tmp_path / "settings.py").write_text(f"first = 1\n\n  {SECRETS[kind]}  \n")
    with pytest.raises(InputError) as caught:
        refuse_secrets(tmp_path, [Path("settings.py")])
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/settings.py: line 3: looks like {kind}, and would be uploaded; take it out")
    assert SECRETS[kind] not in message and "\n" not in message


def test_a_real_private_key_is_found(tmp_path):
    path = tmp_path / "id_ed25519"
    made = subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], capture_output=True)
    if made.returncode:
        pytest.skip("there is no ssh-keygen here")
    assert find_secret(path).kind == "a private key" and find_secret(path.with_suffix(".pub")) is None


@pytest.mark.parametrize(
    "text",
    [
        "account_key = os.environ['AZURE_STORAGE_KEY']",
        'password: "{{ vault.password }}"',
        'parser.add_argument("--password", help="the password of the account, e.g. a long one")',
        "AccountKey=<your key>;EndpointSuffix=core.windows.net",
        "pip install https://user:$TOKEN@example.org/simple",
        "sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "commit 0123456789abcdef0123456789abcdef01234567",
        'api_key = "changeme"',
        "an AKIA of a word, an eyJ too; hf_hub_download(repo) and ghp_ alone",
    ],
)
def test_prose_and_placeholders_are_no_secrets(tmp_path, text):
    (tmp_path / "notes.md").write_text(f"{text}\n")
    assert find_secret(tmp_path / "notes.md") is None


def test_long_lines_count_as_one_and_binary_files_are_passed_over(tmp_path):
    secret = SECRETS["a token of GitHub"]
    (tmp_path / "long.json").write_text("x" * 2_500_000 + f"\n{secret}\n")
    assert find_secret(tmp_path / "long.json").line == 2
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100 + secret.encode())
    assert find_secret(tmp_path / "weights.bin") is None


@pytest.fixture
def job(tmp_path):
    """A job whose code and one input are local, as values to change and a function that writes them."""
    values = {
        "name": "A job",
        "experiment": "trials",
        "command": "python code.py ${{inputs.notes}}",
        "code": "code",
        "inputs": {"notes": {"path": "notes"}},
        "compute": "cpu-cluster",
        "environment": {"name": "tf_bert", "image": "registry.azurecr.io/tf_bert:gpu"},
    }
    fill(tmp_path / "code", [], ["code.py"])
    fill(tmp_path / "notes", [], ["one.txt"])

    def write():
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "job.yaml"

    return values, write


@pytest.mark.parametrize("where", ["code", "notes", "job"])
def test_a_secret_ends_the_submission(job, tmp_path, where, capsys):
    values, write = job
    secret = SECRETS["a storage account's key"]
    if where == "job":
        values["environment_variables"] = {"CONNECTION": secret}
    else:
        (tmp_path / where / "deep").mkdir()
        (tmp_path / where / "deep" / "keys.txt").write_text(f"\n{secret}\n")
    assert cli.main(["azure", "submit", str(write()), "--dry-run", "--output", str(tmp_path / "sent")]) == 1
    printed = capsys.readouterr()
    assert "looks like a storage account's key" in printed.err and printed.err.count("\n") == 1
    assert KEY not in printed.err and not (tmp_path / "sent").exists()
    if where != "job":
        assert f"{tmp_path}/{where}/deep/keys.txt: line 2: " in printed.err


def test_a_secret_on_the_command_line_ends_the_submission(job, capsys):
    secret = SECRETS["a storage account's key"]
    assert cli.main(["azure", "submit", str(job[1]()), "--dry-run", "--environment_variables.CONNECTION", secret]) == 1
    printed = capsys.readouterr().err
    assert "job.yaml: a value of the command line looks like a storage account's key; nothing secret" in printed
    assert KEY not in printed and printed.count("\n") == 1


def test_a_snapshot_over_the_limit_ends_the_submission(job, tmp_path, capsys):
    with (tmp_path / "code" / "model.bin").open("wb") as file:
        file.truncate(301 * 2**20)
    assert cli.main(["azure", "submit", str(job[1]()), "--dry-run", "--output", str(tmp_path / "sent")]) == 1
    printed = capsys.readouterr().err
    assert "Azure takes 300.0 MB; the largest: model.bin (301.0 MB)" in printed and printed.count("\n") == 1
    assert not (tmp_path / "sent").exists()


def test_a_local_input_is_named_relative_to_what_is_sent(job, tmp_path):
    sent = tmp_path / "deep" / "sent"
    assert cli.main(["azure", "submit", str(job[1]()), "--dry-run", "--output", str(sent)]) == 0
    written = yaml.safe_load((sent / "job.yml").read_text())
    assert written["code"] == "../../code"
    assert written["inputs"] == {"notes": {"type": "uri_folder", "path": "../../notes", "mode": "ro_mount"}}
    assert written["environment"] == {"image": "registry.azurecr.io/tf_bert:gpu"} and "distribution" not in written


def test_reading_a_job_needs_no_sdk(job, tmp_path):
    script = (
        "import sys; from pathlib import Path; from tf_bert.azure.pipeline import read_job_or_pipeline as read\n"
        "from tf_bert.azure.submission import check_upload; check_upload(read(Path(sys.argv[1])))\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('azure', 'azureml', 'tensorflow')))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(job[1]())], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
