"""The fused optimizer steps as Keras's own."""

import numpy as np
import pytest


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_steps_are_those_of_keras(policy: str) -> None:
    import keras

    from stages.adam import Adam

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

    for mine, theirs in zip(trained(Adam(0.01)), trained(keras.optimizers.Adam(0.01)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-6)
