"""The settings of a sweep: which settings of finetuning are tried, and when a run is given up."""

import dataclasses
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass

from tf_bert.config.fields import STRICT, NonNegativeInt, PositiveFloat, PositiveInt
from tf_bert.config.finetuning import FinetuneConfig


@dataclass(frozen=True, config=STRICT)
class ParameterConfig:
    """The values of one setting: one of the three."""

    choice: tuple[Any, ...] | None = None
    """A list; a grid tries all of it."""
    uniform: tuple[float, float] | None = None
    """Lowest and highest; random draws in between."""
    log_uniform: tuple[float, float] | None = None
    """Lowest and highest, above 0; random draws in between, every factor as likely as any other."""

    def __post_init__(self) -> None:
        given = [name for name in ("choice", "uniform", "log_uniform") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'nothing'}, expected one of choice, uniform, log_uniform")
        if self.choice == ():
            raise ValueError("found an empty list, expected values")
        low, high = self.log_uniform or self.uniform or (1.0, 2.0)
        if not low < high or (self.log_uniform and low <= 0.0):
            raise ValueError(
                f"found {given[0]} {low:g} to {high:g}, expected lowest < highest{', above 0' * bool(self.log_uniform)}"
            )


def _parameter(value: Any) -> Any:
    """A list is short for its choice, a single value for a list of one."""
    if isinstance(value, dict):
        known = [field.name for field in dataclasses.fields(ParameterConfig)]
        if unknown := [key for key in value if key not in known]:
            raise ValueError(f"found {unknown[0]!r}, expected one of {', '.join(known)}")
    if isinstance(value, dict | ParameterConfig):
        return value
    return {"choice": value if isinstance(value, list | tuple) else [value]}


@dataclass(frozen=True, config=STRICT)
class BanditConfig:
    """When a run is given up, as Azure Machine Learning's Bandit policy has it."""

    slack_factor: PositiveFloat | None = None
    """A run ends if its best value so far, times 1 + this, is less than the best run's then; null: none ends."""
    evaluation_interval: PositiveInt = 1
    """Evaluations of a run from one decision to the next."""
    delay_evaluation: NonNegativeInt = 0
    """The first evaluation of a run after which it may be given up."""


@dataclass(frozen=True, config=STRICT)
class SweepConfig(FinetuneConfig):
    """`tf-bert sweep`: one task with many settings, one run after the other."""

    model_dir: str = "runs/sweep"
    """The directory to write; run again, it goes on with what is missing. Each run has a directory in it."""
    search: Literal["grid", "random"] = "grid"
    """grid: every combination of the choices; random: num_runs draws."""
    num_runs: PositiveInt = 8
    """random: runs; more of them may be asked for later."""
    space: dict[str, Annotated[ParameterConfig, pydantic.BeforeValidator(_parameter)]] = Field(default_factory=dict)
    """Values by setting, e.g. {global_batch_size: [16, 32], learning_rate: {log_uniform: [1e-5, 1e-4]}}."""
    bandit: BanditConfig = BanditConfig()
    """When a run is given up."""

    @pydantic.model_validator(mode="after")
    def _check_sweep(self) -> "SweepConfig":
        if not self.space:
            raise ValueError("space is empty; name settings and values, such as --space.learning_rate 2e-5 5e-5")
        if self.seeds != 1:
            raise ValueError(f"seeds is {self.seeds}, but a run of a sweep has one seed; set it to 1")
        if self.test_file is not None:
            raise ValueError("test_file is set, but a sweep predicts nothing; leave it out and use `tf-bert predict`")
        ranges = [name for name, parameter in self.space.items() if parameter.choice is None]
        if self.search == "grid" and ranges:
            raise ValueError(f"space.{ranges[0]} is a range, but a grid needs lists; write a list, or search: random")
        return self
