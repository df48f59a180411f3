"""Groups of variables that are trained in their own way: by another optimizer, learning rate or schedule.

This module imports TensorFlow at the top: import it late.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase

import keras
import numpy as np
import tensorflow as tf

from stages.config.models import ModelConfig
from stages.runtime.errors import UserError

MOMENTUM_NAMES = ("momentum", "beta_1")  # attributes of Keras's optimizers


class GroupedOptimizer(keras.optimizers.Optimizer):
    """Several optimizers as one: each trains its own variables."""

    def __init__(self, members: list[keras.optimizers.Optimizer], variables: list[list[keras.Variable]]) -> None:
        """Arguments: the optimizers, and the variables of each."""
        super().__init__(learning_rate=0.0)  # of no use: each member has its own
        self.members = members
        self._member_variables = variables

    def build(self, variables: list[keras.Variable]) -> None:
        """Build every optimizer for its variables."""
        for member, own in zip(self.members, self._member_variables, strict=True):
            member.build(own)
        super().build(variables)

    @property
    def variables(self) -> list[keras.Variable]:
        """The state of all optimizers."""
        return [self.iterations, *(variable for member in self.members for variable in member.variables)]

    def apply(self, grads: list[tf.Tensor], trainable_variables: list[keras.Variable] | None = None) -> None:
        """Make one step with every optimizer."""
        found = {self._var_key(one): gradient for one, gradient in zip(trainable_variables or [], grads, strict=True)}
        for member, own in zip(self.members, self._member_variables, strict=True):
            member.apply([found[self._var_key(variable)] for variable in own], own)
        self.iterations.assign_add(1)


def split_variables(config: ModelConfig, model: keras.Model) -> list[list[keras.Variable]]:
    """The variables that no group matches, then those of each group.

    Raises:
        UserError: a group has no variables, or two groups have the same one.
    """
    owners: dict[str, str] = {}  # path of a variable → its group
    split = []
    for name, group in config.groups.items():
        own = [variable for variable in model.trainable_variables if _matches(variable, group.variables)]
        key = f"params.yaml: groups.{name}.variables: {group.variables!r} matches"
        if not own:
            paths = ", ".join(variable.path for variable in model.trainable_variables)
            raise UserError(f"{key} none of the trained variables: {paths}")
        for variable in own:
            if (other := owners.setdefault(variable.path, name)) != name:
                raise UserError(f"{key} {variable.path}, which is in groups.{other} as well; a variable has one group")
        split.append(own)
    return [[variable for variable in model.trainable_variables if variable.path not in owners], *split]


def freeze(model: keras.Model, globs: list[str]) -> None:
    """Exclude variables from training.

    Raises:
        UserError: a glob matches no variable.
    """
    for glob in globs:
        matching = [variable for variable in model.variables if _matches(variable, glob)]
        if not matching:
            paths = ", ".join(variable.path for variable in model.trainable_variables)
            raise UserError(f"params.yaml: frozen: {glob!r} matches no variable of the model: {paths}")
        for variable in matching:
            variable.trainable = False


def _matches(variable: keras.Variable, glob: str) -> bool:
    """Whether the glob matches the path of the variable, or what follows a slash in it."""
    return fnmatchcase(variable.path, glob) or fnmatchcase(variable.path, f"*/{glob}")


def make_hyperparameter_setter(optimizer: keras.optimizers.Optimizer, rates: np.ndarray) -> Callable[[tf.Tensor], None]:
    """Return a function that sets learning rates and momenta for a step.

    Args:
        optimizer: from `build_optimizer`. Where a schedule has a momentum, its number becomes a variable.
        rates: of all steps, (..., groups, 2); a momentum that is NaN stays the optimizer's own.
    """
    inner = optimizer.inner_optimizer if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else optimizer
    members = inner.members if isinstance(inner, GroupedOptimizer) else [inner]
    scheduled = np.isfinite(rates.reshape(-1, len(members), 2)[0])
    targets = [
        (group, column, _momentum_variable(member) if column else member.learning_rate)
        for group, member in enumerate(members)
        for column in (0, 1)
        if scheduled[group, column]
    ]

    def set_hyperparameters(values: tf.Tensor) -> None:
        for group, column, variable in targets:
            variable.assign(values[group, column])

    return set_hyperparameters


def _momentum_variable(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """Make the momentum of an optimizer a variable."""
    name = next((name for name in MOMENTUM_NAMES if getattr(optimizer, name, 0)), None)
    if name is None:
        raise UserError(
            "params.yaml: the schedule sets a momentum, but the optimizer has none; choose another optimizer or remove "
            "momentum from the schedule"
        )
    variable = keras.Variable(
        getattr(optimizer, name), dtype="float32", trainable=False, aggregation="only_first_replica", name=name
    )
    setattr(optimizer, name, variable)
    return variable
