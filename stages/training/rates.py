"""The learning rates and momenta of every step of a training."""

import numpy as np

from stages.config.models import GroupConfig, ModelConfig
from stages.config.plugins import build_plugin
from stages.runtime.errors import UserError


def learning_rates(config: ModelConfig, steps: int) -> np.ndarray:
    """Compute learning rate and momentum of each step, (epochs, steps, groups, 2) float32.

    `build(peak, steps, epochs, *, options)` in a module of stages/training/schedules returns them for all steps of the
    training, (steps,) or (steps, 2). A momentum of NaN is the optimizer's own. The first group is the variables that no
    group of the configuration matches.

    Args:
        config: the resolved configuration.
        steps: number of steps in an epoch.

    Raises:
        UserError: a schedule returns something else.
    """
    total = steps * config.epochs
    rates = np.full((total, 1 + len(config.groups), 2), np.nan, np.float32)
    for number, part in enumerate(group_configs(config)):
        schedule = part.schedule or config.schedule
        values = np.asarray(
            build_plugin(
                "training.schedules", schedule, part.learning_rate or config.learning_rate, total, config.epochs
            )
        )
        if values.shape not in ((total,), (total, 2)) or not np.issubdtype(values.dtype, np.floating):
            raise UserError(
                f"stages/training/schedules/{schedule.name}.py: build returned {values.dtype} {values.shape}: return "
                f"the learning rate of every step, float32 ({total},), or rate and momentum, ({total}, 2)"
            )
        rates[:, number, : 1 if values.ndim == 1 else 2] = values.reshape(total, -1)
    return rates.reshape(config.epochs, steps, -1, 2)


def group_configs(config: ModelConfig) -> list[ModelConfig | GroupConfig]:
    """The model's own configuration, then that of each group, whose null values stand for the model's."""
    return [config, *config.groups.values()]
