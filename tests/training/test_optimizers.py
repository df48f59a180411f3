"""Optimizers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stages.runtime.errors import UserError
from stages.training.optimizers import adam, adamw, muon, radam, sgd

STEPS = 8
RATES = np.linspace(0.2, 0.05, STEPS)  # a learning rate inside of the momentum would show
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, 3, 3, 2, 4))
START = np.random.default_rng(1).normal(size=(3, 3, 2, 4))
Update = Callable[[np.ndarray, np.ndarray, int, float], np.ndarray]  # weights, gradient, step from 1, learning rate


@pytest.mark.parametrize(("policy", "rtol"), [("float32", 1e-3), ("mixed_bfloat16", 0.02)])
def test_fused_adam_makes_the_steps_of_keras(policy: str, rtol: float) -> None:
    """In bfloat16, a difference in the last bit of a weight may change the rounding of a gradient."""
    import keras

    rng = np.random.default_rng(0)
    inputs, labels = rng.random((64, 10), np.float32), rng.integers(0, 3, 64)

    def trained(optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        layers = [keras.Input((10,)), keras.layers.Dense(8, "relu", dtype=policy), keras.layers.Dense(3, "softmax")]
        model = keras.Sequential(layers)
        model.compile(optimizer, "sparse_categorical_crossentropy")
        model.fit(inputs, labels, batch_size=16, epochs=3, shuffle=False, verbose=0)
        assert int(optimizer.iterations) == 12
        return [np.asarray(variable) for variable in [*model.variables, *optimizer.variables[2:]]]

    fused, reference = adam.build(0.01), keras.optimizers.Adam(0.01)
    assert type(fused) is not keras.optimizers.Adam
    for found, expected in zip(trained(fused), trained(reference), strict=True):
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-6 if policy == "float32" else 1e-4)


def weights_after(optimizer: Any) -> np.ndarray:
    """The weights after one step for each of `GRADIENTS`."""
    import keras
    import tensorflow as tf

    variable = keras.Variable(START.astype(np.float32), name="kernel")
    optimizer.build([variable])

    def step(gradient: tf.Tensor, rate: tf.Tensor) -> None:
        optimizer.learning_rate.assign(rate)
        optimizer.apply([gradient], [variable])

    graph = tf.function(step)
    for gradient, rate in zip(GRADIENTS.astype(np.float32), RATES.astype(np.float32), strict=True):
        graph(tf.constant(gradient), tf.constant(rate))
    return np.asarray(variable.value)


def expected_after(update: Update) -> np.ndarray:
    weights = START
    for number, (gradient, rate) in enumerate(zip(GRADIENTS, RATES, strict=True), 1):
        weights = update(weights, gradient, number, rate)
    return weights


@pytest.fixture(params=["one device", "several devices"])
def devices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On several devices, optimizers use no kernel of one device; the arithmetic can be tested on one."""
    import tensorflow as tf

    if request.param == "several devices":
        strategy = tf.distribute.get_strategy()
        monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 2)


@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize(
    ("momentum", "nesterov", "decay"), [(0.9, False, 0.0), (0.85, True, 0.1), (0.0, False, 0.1), (0.0, False, 0.0)]
)
def test_sgd_makes_the_steps_of_pytorch(momentum: float, nesterov: bool, decay: float) -> None:
    velocity = np.zeros_like(START)

    def update(weights: np.ndarray, gradient: np.ndarray, number: int, rate: float) -> np.ndarray:
        nonlocal velocity
        gradient = gradient + decay * weights
        velocity = momentum * velocity + gradient
        return weights - rate * (gradient + momentum * velocity if nesterov else velocity)

    optimizer = sgd.build(0.1, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    np.testing.assert_allclose(weights_after(optimizer), expected_after(update), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("devices")
def test_adamw_makes_the_steps_of_keras() -> None:
    import keras

    options = {"weight_decay": 0.1, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}
    expected = weights_after(keras.optimizers.AdamW(0.1, **options))
    np.testing.assert_allclose(weights_after(adamw.build(0.1, **options)), expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(weights_after(adamw.build(0.1, **{**options, "weight_decay": 0.0})), expected)


@pytest.mark.usefixtures("devices")
def test_radam_steps_by_momentum_until_the_variance_is_known_and_then_by_rectified_adam() -> None:
    mean, squared = np.zeros_like(START), np.zeros_like(START)
    beta_1, beta_2, epsilon, decay = 0.9, 0.99, 0.01, 0.1
    kinds = set()

    def update(weights: np.ndarray, gradient: np.ndarray, number: int, rate: float) -> np.ndarray:
        nonlocal mean, squared
        mean = beta_1 * mean + (1 - beta_1) * gradient
        squared = beta_2 * squared + (1 - beta_2) * gradient**2
        longest = 199
        r = longest - 2 * number * beta_2**number / (1 - beta_2**number)
        step = mean / (1 - beta_1**number)
        if r > 5:
            factor = np.sqrt((r - 4) * (r - 2) * longest / ((longest - 4) * (longest - 2) * r))
            step = step * factor / (np.sqrt(squared / (1 - beta_2**number)) + epsilon)
        kinds.add(r > 5)
        return weights * (1 - rate * decay) - rate * step

    optimizer = radam.build(0.1, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, weight_decay=decay)
    np.testing.assert_allclose(weights_after(optimizer), expected_after(update), rtol=1e-4, atol=1e-5)
    assert kinds == {True, False}


@pytest.mark.parametrize("normalize", [True, False])
def test_muon_steps_by_almost_orthogonal_matrices(normalize: bool) -> None:
    """The reference has a row for each output, as in the authors' code."""
    velocity = np.zeros((4, 18))

    def update(weights: np.ndarray, gradient: np.ndarray, number: int, rate: float) -> np.ndarray:
        nonlocal velocity
        rows = gradient.transpose(3, 2, 0, 1).reshape(4, -1)
        velocity = 0.6 * velocity + rows
        x = rows + 0.6 * velocity
        x = x / (np.linalg.norm(x) + 1e-7)
        for _ in range(3):
            square = x @ x.T
            x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
        assert (np.abs(np.linalg.svd(x)[1] - 1) < 0.5).all()
        if normalize:
            weights = weights * 2 / np.linalg.norm(weights)
        return weights - rate * x.reshape(4, 2, 3, 3).transpose(2, 3, 1, 0)

    optimizer = muon.build(0.1, momentum=0.6, nesterov=True, iterations=3, normalize_weights=normalize)
    np.testing.assert_allclose(weights_after(optimizer), expected_after(update), rtol=1e-4, atol=1e-5)


def test_muon_of_a_bias_is_one_line() -> None:
    import keras

    optimizer = muon.build(0.1, momentum=0.6, nesterov=True, iterations=3)
    with pytest.raises(UserError, match="bias is not a kernel; name another optimizer for it in groups"):
        optimizer.build([keras.Variable(np.zeros(3), name="bias")])
