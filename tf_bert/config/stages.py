"""A run in stages, such as 90% of the steps on short rows and the rest on long ones, as runs one after the other."""

import dataclasses
from pathlib import Path
from typing import Any

from tf_bert.config.reading import from_dict, to_dict
from tf_bert.config.settings import PretrainConfig, StageConfig
from tf_bert.errors import UsageError


@dataclasses.dataclass(frozen=True)
class StageRun:
    """One stage with all its settings, or a run that has none."""

    config: PretrainConfig
    """Of this stage; its output_dir is a directory of its own."""
    name: str = ""
    """Empty for a run without stages."""
    starts_from: str | None = None
    """The output_dir of the stage before; None for the first, which starts from `config.init` if there is such."""
    carries_optimizer: bool = False
    """Whether that stage's optimizer is carried on."""
    earlier_updates: int = 0
    """Updates that the optimizer has done when the stage begins, if none was skipped."""


def stage_runs(config: PretrainConfig) -> list[StageRun]:
    """The stages in their order; one run where there are none.

    Raises:
      UsageError: if a stage has settings that do not fit, or two of them the same name.
    """
    if not config.stages:
        return [StageRun(config)]
    base = {key: value for key, value in to_dict(config).items() if key != "stages"}
    runs: list[StageRun] = []
    for index, stage in enumerate(config.stages):
        if any(stage.name == run.name for run in runs):
            raise UsageError(f"stages.{index}: the name {stage.name} is taken by an earlier stage; choose another")
        if not runs and stage.optimizer_state == "carry":
            raise UsageError("stages.0: has optimizer_state carry, but nothing comes before it; leave it out")
        stage_config = from_dict(PretrainConfig, _laid_over(base, stage), where=f"stages.{index} ({stage.name})")
        if not runs:
            runs.append(StageRun(stage_config, stage.name))
            continue
        before = runs[-1]
        carries = stage.optimizer_state == "carry"
        updates = before.earlier_updates + before.config.training.num_train_steps if carries else 0
        runs.append(StageRun(stage_config, stage.name, before.config.output_dir, carries, updates))
    return runs


def _laid_over(base: dict[str, Any], stage: StageConfig) -> dict[str, Any]:
    groups = {group: {**base[group], **getattr(stage, group)} for group in ("data", "optimizer", "training", "cadence")}
    return {**base, **groups, "output_dir": str(Path(base["output_dir"]) / stage.name)}
