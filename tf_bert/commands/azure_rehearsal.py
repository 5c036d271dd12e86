"""`tf-bert azure rehearse`: a job of Azure Machine Learning, run on this machine."""

import signal
from collections.abc import Sequence
from pathlib import Path

from tf_bert.commands.arguments import parser_of
from tf_bert.errors import OtherRankFailed, UsageError


def rehearse(arguments: Sequence[str]) -> None:
    parser = parser_of("azure rehearse", "Run a job here as Azure would: snapshot, mounts, variables, mpirun.")
    parser.add_argument("job", metavar="JOB.yaml", help="a job, or one run of a sweep")
    parser.add_argument("--nodes", type=int, metavar="N", help="(default: the job's)")
    parser.add_argument("--processes", type=int, metavar="N", help="on each node (default: the job's)")
    parser.add_argument(
        "--preempt", type=int, default=0, metavar="K", help="kill the job K times and start it again, as spot nodes do"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the kills' moments and a sweep's values (0)")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="where an input is here (default: below DIR, e.g. DIR/datastores/NAME/PATH); may be repeated",
    )
    parser.add_argument(
        "--output", default="runs/rehearsal", metavar="DIR", help="of all rehearsals: datastores and jobs (%(default)s)"
    )
    options = parser.parse_args(arguments)
    for name, least in (("nodes", 1), ("processes", 1), ("preempt", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"--{name}: found {value}, expected {least} or more")
    inputs = {}
    for text in options.input:
        name, has_path, path = text.partition("=")
        if not name or not has_path or not path:
            raise UsageError(f"--input: found {text!r}, expected NAME=PATH, such as --input data=data/prepared")
        inputs[name] = Path(path)
    from tf_bert.azure.job import read_job
    from tf_bert.azure.rehearse import Rehearsal, rehearse

    rehearsal = Rehearsal(Path(options.output), options.nodes, options.processes, options.preempt, options.seed, inputs)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever ends the rehearsal ends the job's processes
    if code := rehearse(read_job(Path(options.job)), rehearsal):
        raise OtherRankFailed(code)
