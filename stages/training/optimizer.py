"""Build the optimizer: one for the whole model, or one for each group of variables.

This module imports TensorFlow at the top: import it late.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase

import keras
import numpy as np
import tensorflow as tf

from stages.config.models import ModelConfig
from stages.config.plugins import build_plugin
from stages.runtime.errors import UserError
from stages.training.rates import group_configs

MOMENTUM_NAMES = ("momentum", "beta_1")  # attributes of Keras's optimizers


def build_optimizer(config: ModelConfig, model: keras.Model) -> keras.optimizers.Optimizer:
    """Build the optimizer with its variables; in float16 with a loss scale, so that gradients do not underflow.

    `build(learning_rate, *, options)` in a module of stages/training/optimizers returns a Keras optimizer. A model with
    groups gets one for each of them, and one for the rest. Call this in the scope of the model's strategy.
    """
    members = [
        build_plugin(
            "training.optimizers", part.optimizer or config.optimizer, part.learning_rate or config.learning_rate
        )
        for part in group_configs(config)
    ]
    optimizer = GroupedOptimizer(members, split_variables(config, model)) if config.groups else members[0]
    if model.dtype_policy.name == "mixed_float16":
        optimizer = LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


class GroupedOptimizer(keras.optimizers.Optimizer):
    """Several optimizers as one: each trains its own variables."""

    def __init__(self, members: list[keras.optimizers.Optimizer], variables: list[list[keras.Variable]]) -> None:
        """Take the optimizers, and the variables of each."""
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
        variables = trainable_variables or []
        gradients = {self._var_key(variable): gradient for variable, gradient in zip(variables, grads, strict=True)}
        for member, own in zip(self.members, self._member_variables, strict=True):
            member.apply([gradients[self._var_key(variable)] for variable in own], own)
        self.iterations.assign_add(1)


class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Keras's loss scaling, also on several devices.

    Keras skips a step whose gradients are not finite, but asks only one device, before it sums them: an overflow on
    another device would reach the weights. Here an overflow on one device makes the gradients of all of them NaN.
    """

    def apply(self, grads: list[tf.Tensor], trainable_variables: list[keras.Variable] | None = None) -> None:
        """Make one step, or skip it on every device."""
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            finite = [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in grads if gradient is not None]
            failed = context.all_reduce(tf.distribute.ReduceOp.SUM, 1 - tf.cast(tf.reduce_all(finite), tf.float32))
            poison = tf.where(failed > 0, float("nan"), 0.0)
            grads = [None if gradient is None else gradient + tf.cast(poison, gradient.dtype) for gradient in grads]
        super().apply(grads, trainable_variables)


def split_variables(config: ModelConfig, model: keras.Model) -> list[list[keras.Variable]]:
    """Split the trained variables: those that no group matches, then those of each group.

    Raises:
        UserError: a group has no variables, or shares one with another group.
    """
    owners: dict[str, str] = {}  # path of a variable → its group
    split = []
    for name, group in config.groups.items():
        own = [variable for variable in model.trainable_variables if matches(variable, group.variables)]
        key = f"params.yaml: groups.{name}.variables: {group.variables!r} matches"
        if not own:
            paths = ", ".join(variable.path for variable in model.trainable_variables)
            raise UserError(f"{key} none of the trained variables: {paths}")
        for variable in own:
            if (other := owners.setdefault(variable.path, name)) != name:
                raise UserError(f"{key} {variable.path}, which is in groups.{other} as well; a variable has one group")
        split.append(own)
    return [[variable for variable in model.trainable_variables if variable.path not in owners], *split]


def matches(variable: keras.Variable, glob: str) -> bool:
    """Whether the glob matches the path of the variable, or what follows a slash in it."""
    return fnmatchcase(variable.path, glob) or fnmatchcase(variable.path, f"*/{glob}")


def hyperparameter_setter(optimizer: keras.optimizers.Optimizer, rates: np.ndarray) -> Callable[[tf.Tensor], None]:
    """Return a function that sets learning rates and momenta for a step, (groups, 2).

    Args:
        optimizer: the result of `build_optimizer`. A momentum that the schedule sets becomes a variable.
        rates: rates and momenta of all steps, (..., groups, 2); where a momentum is NaN, the optimizer keeps its own.
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
