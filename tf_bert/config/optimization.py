"""The optimizer's settings and those of its learning-rate schedule."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tf_bert.config.fields import STRICT, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """AdamW or LAMB with global-norm clipping, and the learning-rate schedule."""

    name: Literal["adamw", "lamb"] = "adamw"
    """adamw (Loshchilov and Hutter 2019), or lamb (You et al. 2020) for global batches of many thousand rows."""
    bias_correction: bool = True
    """Undo that the moments start from 0. The original BERT does not: false is its AdamWeightDecayOptimizer."""
    learning_rate: NonNegativeFloat = 1e-4
    """Peak learning rate, reached at the end of warmup; never scaled behind your back."""
    initial_learning_rate: NonNegativeFloat = 0.0
    """Rate that the warmup starts from."""
    num_warmup_steps: NonNegativeInt = 10_000
    """Steps over which the rate rises linearly to the peak."""
    schedule: Literal["linear", "polynomial", "exponential", "time_budget"] = "linear"
    """After warmup: linear or polynomial to the last step; exponential; time_budget goes by hours, not by steps."""
    schedule_steps: PositiveInt | None = None
    """Steps that linear and polynomial schedules span; null: training.num_train_steps."""
    schedule_start: NonNegativeInt = 0
    """Steps of the schedule that lie before the first step of this run, which goes on in the middle of it."""
    end_learning_rate: NonNegativeFloat = 0.0
    """Rate at the last step, or at the end of the time budget; an exponential decay has no such end."""
    decay_power: PositiveFloat | None = None
    """polynomial: what is left of the steps after warmup, as a share, is raised to this power; 1 would be linear."""
    decay_rate: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """exponential: the rate is multiplied by this every decay_steps, smoothly."""
    decay_steps: PositiveFloat | None = None
    """exponential: steps over which the rate falls by the factor decay_rate."""
    warmup_hours: NonNegativeFloat | None = None
    """time_budget: hours over which the rate rises linearly; then it falls until training.time_budget_hours."""
    weight_decay_rate: NonNegativeFloat = 0.01
    """Decoupled weight decay; bias and LayerNorm variables are excluded."""
    beta_1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay of the first-moment average."""
    beta_2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Decay of the second-moment average."""
    epsilon: PositiveFloat = 1e-6
    """Added to the root of the second moment."""
    clip_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this global norm, after unscaling."""

    def __post_init__(self) -> None:
        belongs = {
            "decay_power": ("polynomial", "0.5"),
            "decay_rate": ("exponential", "0.99"),
            "decay_steps": ("exponential", "1000"),
            "warmup_hours": ("time_budget", "1"),
        }
        for field, (schedule, example) in belongs.items():
            value = getattr(self, field)
            if self.schedule == schedule and value is None:
                raise ValueError(f"schedule {schedule} needs {field}; set it, e.g. to {example}")
            if self.schedule != schedule and value is not None:
                raise ValueError(
                    f"{field} {value:g} belongs to schedule {schedule}, found schedule {self.schedule}; set the one or "
                    "leave out the other"
                )
        if self.schedule == "exponential" and self.end_learning_rate:
            raise ValueError(
                f"end_learning_rate {self.end_learning_rate:g} has no meaning for schedule exponential, which ends "
                "where decay_rate and decay_steps lead; leave it out"
            )
        if self.schedule == "time_budget" and self.num_warmup_steps:
            raise ValueError(
                f"schedule time_budget warms up for warmup_hours {self.warmup_hours:g}, not for num_warmup_steps "
                f"{self.num_warmup_steps}; set the latter to 0"
            )
        for field in ("initial_learning_rate", "end_learning_rate"):
            if getattr(self, field) > self.learning_rate:
                raise ValueError(
                    f"{field} {getattr(self, field):g} is above the peak, learning_rate {self.learning_rate:g}; lower "
                    "it, or raise the peak"
                )
