"""The Dockerfiles name what there is: bases, copied files, scripts, requirements. They are not built here."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCKERFILES = {path.name: path for path in (ROOT / "docker").glob("*.Dockerfile")}
BASES = {
    "gpu.Dockerfile": "mcr.microsoft.com/azureml/openmpi5.0-cuda12.5-ubuntu22.04",
    "cpu.Dockerfile": "python:3.11-slim",
}
SERVING = {"serving.Dockerfile": "tensorflow/serving:2.20.0"}
"""Built from an export, not from the checkout."""


def instructions(name):
    """Pairs of an instruction and its arguments, continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILES[name].read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def of(name, wanted):
    return [rest for word, rest in instructions(name) if word == wanted]


def allowed_by_dockerignore():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines  # everything is left out but what follows
    return {line[1:] for line in lines if line.startswith("!")}


def test_there_is_one_for_each_base():
    bases = {name: [base] for name, base in (BASES | SERVING).items()}
    assert {name: of(name, "FROM") for name in DOCKERFILES} == bases


@pytest.mark.parametrize("name", BASES)
def test_every_instruction_is_one_that_docker_knows(name):
    known = {"FROM", "RUN", "WORKDIR", "ENV", "COPY", "CMD"}
    assert {word for word, _ in instructions(name)} == known


@pytest.mark.parametrize("name", BASES)
def test_what_is_copied_is_there_tracked_and_reaches_the_builder(name):
    copied = [source for rest in of(name, "COPY") for source in rest.split()[:-1]]
    assert {"requirements.lock", "pyproject.toml", "setup.py", "tf_bert", "scripts/build_horovod.sh"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed_by_dockerignore(), f"{source} is left out by .dockerignore"
        assert (
            subprocess.run(["git", "ls-files", "--error-unmatch", source], cwd=ROOT, capture_output=True).returncode
            == 0
        )


@pytest.mark.parametrize("name", BASES)
def test_commands_are_those_of_this_project_and_of_the_tools_that_are_installed(name):
    script = ""
    for word, rest in instructions(name):
        if word == "COPY":
            script += f"\n# {rest}"
        elif word == "RUN":
            script += f"\n{rest}"
            # Nothing is run before it is copied.
            for used in re.findall(r"scripts/\S+\.sh|requirements\.lock", rest):
                assert re.search(rf"^# .*{re.escape(used)}", script, re.MULTILINE), f"{used} is used before it is there"
            assert subprocess.run(["bash", "-n", "-c", rest]).returncode == 0
    assert os.access(ROOT / "scripts" / "build_horovod.sh", os.X_OK)
    assert "apt-get install --yes --no-install-recommends g++ make" in script  # what Horovod's build needs
    (command,) = of(name, "CMD")
    assert command == '["tf-bert", "--help"]'


def test_the_gpu_image_builds_horovod_with_nccl_by_the_script():
    (build,) = [rest for rest in of("gpu.Dockerfile", "RUN") if "build_horovod" in rest]
    assert re.search(r"HOROVOD_GPU_OPERATIONS=NCCL .*scripts/build_horovod.sh \.venv", build)
    assert any('"tensorflow[and-cuda]"' in rest for rest in of("gpu.Dockerfile", "RUN"))  # cuDNN 9 and NCCL
    assert any("/usr/local/cuda/bin" in rest for rest in of("gpu.Dockerfile", "ENV"))  # nvcc


def test_the_page_on_docker_names_all_and_commands_that_exist():
    page = (ROOT / "docs" / "docker.md").read_text()
    for name in DOCKERFILES:
        assert f"docker build -f docker/{name}" in page
    from tf_bert.cli import COMMANDS

    for command in re.findall(r"^(?:docker run .*|mpirun .*|  .*)tf-bert ([a-z-]+)", page, re.MULTILINE):
        assert any(known.split()[0] == command for known in COMMANDS), command


def test_the_serving_image_is_the_official_one_with_an_export_and_its_batching():
    from tf_bert.serving.deployment_files import BATCHING_FILE, SERVER_IMAGE

    assert SERVING == {"serving.Dockerfile": SERVER_IMAGE}
    known = {"FROM", "ARG", "ENV", "COPY", "CMD"}
    assert {word for word, _ in instructions("serving.Dockerfile")} == known
    assert of("serving.Dockerfile", "ENV") == ["MODEL_NAME=${MODEL_NAME}"]
    assert of("serving.Dockerfile", "COPY") == [". /models/${MODEL_NAME}/", f"{BATCHING_FILE} /models/"]
    (command,) = of("serving.Dockerfile", "CMD")
    flags = f'["--enable_batching=true", "--batching_parameters_file=/models/{BATCHING_FILE}"]'
    assert command == flags


def build_horovod(tmp_path, **variables):
    """The last line of scripts/build_horovod.sh with nothing but the given tools on its path, and its exit code."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "env", "dirname", "mkdir", "mktemp", "rm", "sed", "cksum", "cut", "g++"):
        found = subprocess.run(["bash", "-c", f"command -v {tool}"], capture_output=True, text=True).stdout.strip()
        if not found:
            pytest.skip(f"{tool} is not installed")
        (tools / tool).symlink_to(found)
    script = tmp_path / "checkout" / "scripts" / "build_horovod.sh"
    script.parent.mkdir(parents=True)
    script.write_bytes((ROOT / "scripts" / "build_horovod.sh").read_bytes())
    environment = {"PATH": str(tools), "HOME": str(tmp_path), **variables}
    done = subprocess.run(["bash", str(script), str(tmp_path)], env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_a_gpu_build_without_cuda_says_so(tmp_path):
    code, line = build_horovod(tmp_path, HOROVOD_GPU_OPERATIONS="NCCL")
    assert code == 1
    assert line.startswith("Horovod: nvcc not found: HOROVOD_GPU_OPERATIONS needs the CUDA toolkit on PATH; see ")


def test_a_gpu_build_without_nccl_says_so(tmp_path):
    if Path("/usr/include/nccl.h").exists():
        pytest.skip("NCCL is installed on this system")
    cuda = tmp_path / "cuda"
    cuda.mkdir()
    (cuda / "nvcc").write_text("#!/bin/bash\necho 'Cuda compilation tools, release 12.5, V12.5.82'\n")
    (cuda / "nvcc").chmod(0o755)
    # The environment's Python is not there either, so neither is its NCCL.
    code, line = build_horovod(tmp_path, HOROVOD_GPU_OPERATIONS="NCCL", PATH=f"{tmp_path}/bin:{cuda}")
    assert code == 1
    assert line.startswith(
        "Horovod: NCCL not found: install tensorflow[and-cuda] or the system's libnccl-dev, or set HO"
    )
