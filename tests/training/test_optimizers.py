"""Optimizers."""

import numpy as np
import pytest

from stages.training.optimizers import adam


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
