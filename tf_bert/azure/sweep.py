"""A sweep on Azure: which values are drawn for a job's command, and when a run of it is given up."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tf_bert.config import BanditConfig, ParameterConfig
from tf_bert.config.fields import STRICT, NonNegativeInt, PositiveInt


@dataclass(frozen=True, config=STRICT)
class SweepPart:
    """How a job is repeated with other values."""

    metric: str
    """The metric to look at, by the name under which the run logs it."""
    parameters: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], ParameterConfig]
    """Values by the name of the placeholder `${{search_space.NAME}}`: choice, uniform or log_uniform."""
    max_total_trials: PositiveInt
    """Runs in all."""
    goal: Literal["maximize", "minimize"] = "maximize"
    """Whether more of the metric is better, or less."""
    sampling: Literal["random"] = "random"
    """How values are drawn; every draw is independent of the others."""
    seed: NonNegativeInt | None = None
    """Of the draws, with SDK v2; null: others every time. SDK v1 knows no seed."""
    max_concurrent_trials: PositiveInt = 1
    """Runs at the same time."""
    time_limit_minutes: PositiveInt | None = None
    """End the whole sweep after so long; null: do not."""
    bandit: BanditConfig = BanditConfig()
    """When a run is given up; it counts the reports of the metric."""

    def __post_init__(self) -> None:
        if not self.parameters:
            raise ValueError("parameters is empty; name placeholders of the command and their values")
        if self.max_concurrent_trials > self.max_total_trials:
            raise ValueError(
                f"max_concurrent_trials {self.max_concurrent_trials} exceeds max_total_trials {self.max_total_trials}; "
                "lower it"
            )
