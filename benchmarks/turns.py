"""Sides that live in processes of their own and work when it is their turn."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence


def answer(tasks: Mapping[str, Callable[[], float]], opening: str) -> None:
    """In the side's process: prints the opening, then does what each line of the standard input names.

    Args:
      tasks: by name; each returns its number, such as the seconds that it took.
      opening: a line that tells what the side is.
    """
    print(opening, flush=True)
    for line in sys.stdin:
        print(tasks[line.strip()](), flush=True)


class Side:
    """A process that answers; its standard error is this process's.

    Args:
      words: its command.
      environment: its variables; None: those of this process.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.opening = self._line()

    def ask(self, task: str) -> float:
        """The number that a task returns."""
        self._process.stdin.write(f"{task}\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(self._process.args[:2])} ended, see above")
        return line.strip()

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
