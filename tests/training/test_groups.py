"""Groups of variables, frozen variables, and what a schedule sets."""

from typing import Any

import numpy as np
import pytest

from stages.config import overrides
from stages.config.models import TrainConfig
from stages.runtime.errors import UserError
from stages.training.loop import train_epochs
from stages.training.network import build_model
from stages.training.optimizer import build_optimizer, hyperparameter_setter
from stages.training.rates import learning_rates
from tests.training.small import arrays, config, history_of, model_of, trained

ONE_STEP: dict[str, Any] = {"epochs": 1, "batch_size": 70}
SGD = {"name": "sgd", "momentum": 0.5}
BIASES = {"variables": "*/bias", "optimizer": SGD, "learning_rate": 0.5}


def test_groups_train_their_variables_as_their_optimizers_alone_would() -> None:
    """All gradients of a single step are those of the first weights."""
    both, history = trained(config(**ONE_STEP, groups={"biases": BIASES}))
    adam, _ = trained(config(**ONE_STEP))
    sgd, _ = trained(config(**ONE_STEP, optimizer=SGD, learning_rate=0.5))
    for variable, by_adam, by_sgd in zip(both.variables, adam.variables, sgd.variables, strict=True):
        expected = by_sgd if variable.path.endswith("bias") else by_adam
        np.testing.assert_array_equal(np.asarray(variable.value), np.asarray(expected.value))
    assert history["learning_rate"].iloc[0] == 0.01


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_groups_train_in_reduced_precision(policy: str) -> None:
    import keras

    keras.config.set_dtype_policy(policy)
    try:
        groups = {
            "kernels": {
                "variables": "*/kernel",
                "optimizer": {"name": "muon", "momentum": 0.6, "nesterov": True, "iterations": 3},
            },
            "biases": BIASES,
        }
        model = model_of(config(groups=groups))
        before = model.get_weights()
        history = history_of(train_epochs(model, config(groups=groups, epochs=8), arrays(), arrays(seed=5), 1))
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    assert history["val_accuracy"].iloc[-1] > 0.9


@pytest.mark.parametrize("names", [["a", "b"], ["b", "a"]])
def test_order_of_groups_does_not_matter(names: list[str]) -> None:
    groups = {"a": {"variables": "*_1/bias"}, "b": {"variables": "dense/bias", "learning_rate": 0.5}}
    entry = config(groups={name: groups[name] for name in names})
    optimizer: Any = build_optimizer(entry, model_of(entry))
    assert [[variable.path for variable in own] for own in optimizer._member_variables] == [
        ["sequential/dense/kernel", "sequential/dense_1/kernel"],
        ["sequential/dense_1/bias"],
        ["sequential/dense/bias"],
    ]
    np.testing.assert_array_equal(learning_rates(entry, 5)[0, 0, :, 0], np.array([0.01, 0.01, 0.5], np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"groups": {"a": {"variables": "x*"}}},
            r"groups\.a\.variables: 'x\*' matches none .*: sequential/dense/kernel, seq",
        ),
        (
            {"groups": {"a": BIASES, "b": BIASES}},
            r"groups\.b\.variables: '\*/bias' matches sequential/dense/bias, which is in groups\.a as well",
        ),
        ({"frozen": ["x*"]}, r"frozen: 'x\*' matches no variable of the model: sequential/dense/kernel"),
        (
            {"schedule": {"name": "one_cycle", "warmup": 0.3, "start": 0.0, "end": 0.0, "momentum": [0.9, 0.8]}}
            | {"optimizer": {"name": "sgd"}},
            "the schedule sets a momentum, but the optimizer has none",
        ),
    ],
)
def test_glob_without_variables_or_momentum_without_use_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        trained(config(**changes))
    assert "\n" not in str(caught.value)


def test_frozen_variables_are_not_trained_and_have_no_optimizer_state() -> None:
    model, _ = trained(config(frozen=["dense/kernel"]))
    start = model_of(config())
    changed = [not np.array_equal(old, new) for old, new in zip(start.get_weights(), model.get_weights(), strict=True)]
    assert changed == [False, True, True, True]
    free, frozen = (
        build_optimizer(entry, build_model(entry, (8, 8, 1), np.dtype("uint8"), 2))
        for entry in (config(), config(frozen=["*/kernel"]))
    )
    assert len(free.variables) - len(frozen.variables) == 4


def test_schedule_sets_learning_rate_and_momentum_of_every_step() -> None:
    """The reference is the arithmetic of PyTorch with another momentum in each step."""
    import keras
    import tensorflow as tf

    schedule = {"name": "one_cycle", "warmup": 0.3, "start": 0.1, "end": 0.0, "momentum": [0.9, 0.5]}
    entry = config(optimizer=SGD, schedule=schedule, learning_rate=1.0, epochs=2)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
    optimizer = build_optimizer(entry, model)
    rates = learning_rates(entry, 5)
    set_hyperparameters = hyperparameter_setter(optimizer, rates)
    gradients = np.random.default_rng(0).normal(size=(10, 3, 2)).astype(np.float32)
    weights, velocity = model.get_weights()[0], np.zeros((3, 2))
    for values, gradient in zip(rates.reshape(10, 1, 2), gradients, strict=True):
        set_hyperparameters(tf.constant(values))
        optimizer.apply([tf.constant(gradient)], model.trainable_variables)
        velocity = values[0, 1] * velocity + gradient
        weights = weights - values[0, 0] * velocity
    np.testing.assert_allclose(model.get_weights()[0], weights, rtol=1e-5)
    assert np.ptp(rates[..., 1]) > 0.3


def test_learning_rate_of_all_models_scales_that_of_groups() -> None:
    entry = config(groups={"biases": BIASES, "kernels": {"variables": "*/kernel"}})
    merged = overrides.merge(entry, TrainConfig(validation_fraction=0.1, learning_rate=0.02), synthetic=False)
    assert merged.learning_rate == 0.02
    assert [group.learning_rate for group in merged.groups.values()] == [1.0, None]
    assert (
        overrides.merge(entry, TrainConfig(validation_fraction=0.1, epochs=2), synthetic=False).groups == entry.groups
    )


def test_schedule_sets_the_first_beta_of_adam() -> None:
    one_cycle = {"name": "one_cycle", "warmup": 0.5, "start": 0.1, "end": 0.1, "momentum": [0.95, 0.85]}
    _, history = trained(config(schedule=one_cycle, epochs=20))
    assert history["val_accuracy"].iloc[-1] > 0.9
