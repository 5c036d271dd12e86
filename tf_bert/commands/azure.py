"""Commands about Azure Machine Learning: sending jobs, and looking after them."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_bert.commands.arguments import parse_overrides, parser_of
from tf_bert.errors import UsageError

if TYPE_CHECKING:
    from tf_bert.azure.job import JobFile
    from tf_bert.azure.pipeline import PipelineFile
    from tf_bert.azure.submission import Target

_FIELDS = "Fields of the job can be given too, and win over the file: --nodes 4, --compute CLUSTER, ..."


def submit(arguments: Sequence[str]) -> None:
    parser = _parser("submit", "Send a job or a pipeline to Azure Machine Learning.", fields=True)
    _add_dry_run(parser)
    options, overrides = _parse(parser, arguments)
    work = _read(options.job, overrides)
    if _is_sweep(work):
        raise UsageError(f"{options.job}: is a sweep; send it with `tf-bert azure sweep`")
    _send(work, options)


def sweep(arguments: Sequence[str]) -> None:
    parser = _parser("sweep", "Send a sweep to Azure Machine Learning, or tell what came of it.", fields=True)
    _add_dry_run(parser)
    parser.add_argument("--results", action="store_true", help="send nothing; show the runs of the newest, best first")
    _add_run(parser)
    options, overrides = _parse(parser, arguments)
    work = _read(options.job, overrides)
    if not _is_sweep(work):
        raise UsageError(f"{options.job}: has no sweep; send it with `tf-bert azure submit`")
    if not options.results:
        _send(work, options)
        return
    from tf_bert.azure.submission import trials

    file = _job_of(work)
    for trial in trials(file, *_find(file, options)):
        metric = "-" if trial.metric is None else f"{trial.metric:.4f}"
        values = ", ".join(f"{name} {value}" for name, value in trial.values.items())
        print(f"{metric}  {trial.run.name}: {trial.run.status}: {values}")


def status(arguments: Sequence[str]) -> None:
    parser = _parser("status", "Tell how the newest run of a job is doing.")
    _add_run(parser)
    options, _ = _parse(parser, arguments)
    _, run = _find(_read(options.job), options)
    print(f"{run.name}: {run.status}")
    print(run.url)


def logs(arguments: Sequence[str]) -> None:
    parser = _parser("logs", "Show the log of the newest run of a job, until it has ended.")
    _add_run(parser)
    options, _ = _parse(parser, arguments)
    client, run = _find(_read(options.job), options)
    client.follow_logs(run.name)


def download(arguments: Sequence[str]) -> None:
    parser = _parser("download", "Copy what the newest run of a job has written to this machine.")
    _add_run(parser)
    parser.add_argument("--output", help="one of the outputs that the job names (default: the logs and ./outputs)")
    parser.add_argument("--to", help="the folder to write (default: runs/azure/RUN)")
    options, _ = _parse(parser, arguments)
    from tf_bert.azure.job import JobFile

    work = _read(options.job)
    file = work if isinstance(work, JobFile) else None
    if options.output is not None and (file is None or options.output not in file.job.outputs):
        known = ", ".join(file.job.outputs) if file else "none, as it is a pipeline"
        raise UsageError(f"--output: {options.job} has no output {options.output}; it has {known or 'none'}")
    client, run = _find(work, options)
    directory = Path(options.to) if options.to else Path("runs/azure") / run.name
    client.download(run.name, options.output, file, directory)
    print(f"{directory}: {options.output or 'logs and outputs'} of {run.name}")


def cancel(arguments: Sequence[str]) -> None:
    parser = _parser("cancel", "End the newest run of a job.")
    _add_run(parser)
    options, _ = _parse(parser, arguments)
    client, run = _find(_read(options.job), options)
    client.cancel(run.name)
    print(f"{run.name}: is being canceled")


def register(arguments: Sequence[str]) -> None:
    parser = _parser("register", "Make a model of what the newest run of a job, or the best of a sweep, has written.")
    _add_run(parser)
    options, _ = _parse(parser, arguments)
    from tf_bert.azure.submission import register

    file = _job_of(_read(options.job))
    print(f"{register(file, *_find(file, options))}: registered")


def deploy(arguments: Sequence[str]) -> None:
    parser = parser_of("azure deploy", "Put an export behind a managed online endpoint, with SDK v2.")
    parser.add_argument("export_dir", help="a directory that `tf-bert export` wrote")
    parser.add_argument("--dry-run", action="store_true", help="have the SDK check the files, and send nothing")
    _add_workspace(parser)
    options = parser.parse_args(arguments)
    options.sdk = "v2"
    from tf_bert.azure.submission import check_deployment, deploy

    endpoint, deployment = check_deployment(Path(options.export_dir))
    if options.dry_run:
        print(f"{options.export_dir}: endpoint {endpoint}, deployment {deployment}; nothing was sent")
        return
    print(f"{endpoint}: {deploy(Path(options.export_dir), _target(options))}")


def _parser(command: str, description: str, fields: bool = False) -> argparse.ArgumentParser:
    parser = parser_of(f"azure {command}", description)
    parser.allow_abbrev, parser.epilog = False, _FIELDS if fields else None
    parser.add_argument("job", metavar="JOB.yaml", help="a job, a sweep or a pipeline; see configs/azure")
    parser.add_argument("--sdk", choices=("v2", "v1"), default="v2", help="Azure's SDK (v2)")
    _add_workspace(parser)
    return parser


def _add_workspace(parser: argparse.ArgumentParser) -> None:
    where = "(default: AZURE_SUBSCRIPTION_ID, or config.json here or above)"
    parser.add_argument("--subscription_id", help=f"of the workspace {where}")
    parser.add_argument("--resource_group", help="of the workspace (default: AZURE_RESOURCE_GROUP, or config.json)")
    parser.add_argument("--workspace_name", help="(default: AZUREML_WORKSPACE_NAME, or config.json)")


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="write what would be sent, and send nothing")
    parser.add_argument("--output", help="with --dry-run: the folder to write (default: runs/azure/JOB-SDK)")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", help="Azure's name of the run (default: the newest of the job)")


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Options of the command, and fields of the job, which only some commands take."""
    options, others = parser.parse_known_args(arguments)
    if others and parser.epilog is None:
        raise UsageError(f"found '{others[0]}', which is no option of this command; --help lists them")
    return options, parse_overrides(others)


def _read(path: str, overrides: Mapping[str, Any] | None = None) -> "JobFile | PipelineFile":
    from tf_bert.azure.pipeline import read_job_or_pipeline

    return read_job_or_pipeline(Path(path), overrides)


def _job_of(work: "JobFile | PipelineFile") -> "JobFile":
    from tf_bert.azure.job import JobFile

    if not isinstance(work, JobFile):
        raise UsageError(f"{work.path}: is a pipeline; name one of its jobs")
    return work


def _is_sweep(work: "JobFile | PipelineFile") -> bool:
    from tf_bert.azure.job import JobFile

    return isinstance(work, JobFile) and work.job.sweep is not None


def _target(options: argparse.Namespace) -> "Target":
    from tf_bert.azure.submission import Target

    keys = ("subscription_id", "resource_group", "workspace_name")
    return Target(options.sdk, {key: getattr(options, key) for key in keys})


def _find(work: "JobFile | PipelineFile", options: argparse.Namespace) -> tuple[Any, Any]:
    """The workspace's client, and the run that is meant."""
    from tf_bert.azure.submission import find_run

    client = _target(options).connect(work.path.parent)
    return client, find_run(work, client, options.run)


def _send(work: "JobFile | PipelineFile", options: argparse.Namespace) -> None:
    from tf_bert.azure.submission import dry_run, submit

    if options.output and not options.dry_run:
        raise UsageError("--output is about --dry-run; add it, or leave --output out")
    if options.dry_run:
        directory = Path(options.output or f"runs/azure/{work.path.stem}-{options.sdk}")
        for path in dry_run(work, options.sdk, directory):
            print(path)
        print("nothing was sent")
        return
    run = submit(work, _target(options))
    print(f"{run.name}: {run.status}")
    print(run.url)
