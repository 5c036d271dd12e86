"""Errors that are the user's to mend: one line that says where, what was found, what was expected and what to do.

Everything else that is raised is a bug of ours and keeps its traceback. This module is a leaf that every
room may import; only `cli.py` turns these errors into exit codes.
"""


class InputError(Exception):
    """A file, record or machine is not as it must be. The command ends with exit code 1."""


class Diverged(InputError):
    """The numbers of a run are not finite any more: another learning rate may do better."""


class UsageError(Exception):
    """A flag or a configuration is wrong. The command ends with exit code 2."""


class OtherRankFailed(Exception):
    """This process ends because another rank has, which tells why: nothing is printed here."""

    def __init__(self, exit_code: int = 1) -> None:
        super().__init__(f"another rank failed with exit code {exit_code}")
        self.exit_code = exit_code
