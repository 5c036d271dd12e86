"""The settings of a sweep's runs: all combinations, or draws that depend on (seed, number of the run) alone."""

import itertools
import math
from typing import Any

import numpy as np

from tf_bert.config import ParameterConfig, SweepConfig

Parameters = dict[str, Any]
"""Values by setting."""

_DIGITS = 4  # of a number that is drawn: it can be read, and typed again
_DRAWS = 100  # in vain, before all settings pass for drawn


def draw(config: SweepConfig) -> list[Parameters]:
    """The settings of every run, in their order; those of a longer random search begin with those of a shorter one.

    No settings come twice, so that a small space may have fewer than `num_runs`.
    """
    if config.search == "grid":
        choices = [dict.fromkeys(parameter.choice or ()) for parameter in config.space.values()]
        return [dict(zip(config.space, values, strict=True)) for values in itertools.product(*choices)]
    drawn: list[Parameters] = []
    for number in range(config.num_runs):
        for attempt in range(_DRAWS):
            generator = np.random.Generator(np.random.PCG64([config.seed, number, attempt]))
            parameters = {name: _draw_one(generator, parameter) for name, parameter in config.space.items()}
            if parameters not in drawn:
                drawn.append(parameters)
                break
    return drawn


def _draw_one(generator: np.random.Generator, parameter: ParameterConfig) -> Any:
    if parameter.choice is not None:
        return parameter.choice[generator.integers(len(parameter.choice))]
    if parameter.log_uniform:
        low, high = parameter.log_uniform
        value = math.exp(generator.uniform(math.log(low), math.log(high)))
    else:
        low, high = parameter.uniform or (0.0, 1.0)
        value = generator.uniform(low, high)
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)
