"""When a rehearsed job is killed, as machines of the spot tier are taken away: while it does its steps, by chance."""

import random
import re

_STEP = re.compile(r"^step (?P<done>[\d,]+)/(?P<of>[\d,]+)\b")  # as runs print it every cadence.log_every steps

_LAST_SHARE = 0.8  # of a run's steps; a kill that is later than that might come after its end


class Preemptions:
    """The moments of all kills of a rehearsal: shares of the run's steps, and a pause after the line that tells them.

    Args:
      count: how many kills.
      seed: draws the moments.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._shares = sorted(self._random.uniform(0.0, _LAST_SHARE) for _ in range(count))
        self._last_line: float | None = None

    @property
    def left(self) -> int:
        """Kills that are still to come."""
        return len(self._shares)

    def begin_attempt(self) -> None:
        """A new attempt prints its lines."""
        self._last_line = None

    def pause_until_kill(self, line: str, now: float) -> float | None:
        """How many seconds after this line the job is to be killed; None: not because of it.

        Args:
          line: what the job has printed.
          now: seconds on a clock.
        """
        match = _STEP.match(line)
        if not match:
            return None
        lap = 0.0 if self._last_line is None else now - self._last_line
        self._last_line = now
        share = int(match["done"].replace(",", "")) / int(match["of"].replace(",", ""))
        if not self._shares or share < self._shares[0]:
            return None
        return self._random.uniform(0.0, lap)  # in the midst of steps, evaluations and checkpoints

    def killed(self) -> None:
        """The kill has come."""
        self._shares.pop(0)
