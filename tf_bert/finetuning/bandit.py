"""The Bandit policy of Azure Machine Learning, which gives up runs that are far behind the best."""

from collections.abc import Iterable, Sequence

from tf_bert.config import BanditConfig


def falls_behind(
    config: BanditConfig, higher_is_better: bool, values: Sequence[float], others: Iterable[Sequence[float]]
) -> bool:
    """Whether a run is to be given up after its last evaluation.

    Azure's rule (https://learn.microsoft.com/azure/machine-learning/how-to-tune-hyperparameters#bandit-policy): at
    every evaluation whose number is a multiple of evaluation_interval and at least delay_evaluation, a run ends whose
    best value so far is less than the best run's at the same evaluation, divided by 1 + slack_factor; or is more than
    it times 1 + slack_factor where lower is better. Of a value below 0 the slack is the same share of its size: the
    best run itself is never behind.

    Args:
      config: the policy.
      higher_is_better: of the metric.
      values: the metric at the run's evaluations so far, the first of which has the number 1.
      others: the same of other runs; those that ended before this number do not count.
    """
    number, slack = len(values), config.slack_factor
    if slack is None or not number or number % config.evaluation_interval or number < config.delay_evaluation:
        return False
    best_of = max if higher_is_better else min
    rivals = [best_of(other[:number]) for other in others if len(other) >= number]
    if not rivals:
        return False
    best, own = best_of(rivals), best_of(values)
    if higher_is_better:
        return own < best - abs(best) * slack / (1.0 + slack)
    return own > best + abs(best) * slack
