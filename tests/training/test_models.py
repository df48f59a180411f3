"""Every model of params.yaml trains for two steps, with its optimizer, schedule, loss and augmentations."""

import numpy as np
import pytest

from stages.config import params
from stages.data.reader import SplitArrays
from stages.training.loop import train_epochs
from stages.training.network import build_model
from tests.conftest import SAMPLE

VALUES = params.load(SAMPLE / "params.yaml")
SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3), "imagenette_vgg16": (7, 7, 512)}


@pytest.mark.parametrize("name", VALUES.models)
def test_model_of_params_trains_and_changes_all_its_trained_weights(name: str) -> None:
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    config = VALUES.models[name].model_copy(update={"batch_size": 8, "epochs": 1, "compute_dtype": "float32"})
    size = config.image_size or 0
    shape = SHAPES.get(config.dataset, (size, size, 3))
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (16, *shape)).astype("float16" if config.dataset in VALUES.features else "uint8")
    images = SplitArrays(np.array([f"{n}" for n in range(16)], object), inputs, np.arange(16, dtype=np.int32) % 10)
    model = build_model(config, shape, inputs.dtype, 10)
    before = model.get_weights()
    ((epoch, row),) = train_epochs(model, config, images, images, seed=0)
    assert epoch == 1 and np.isfinite(row["loss"]) and np.isfinite(row["val_loss"])
    same = [
        path
        for path, old, new in zip([v.path for v in model.weights], before, model.get_weights(), strict=True)
        # Behind a block that starts as the identity, the gradient of a scale is too small to change the number 1.
        if np.array_equal(old, new) and not (path.endswith("/gamma") and np.all(new == 1))
    ]
    assert set(same) <= {"whitening/kernel", "whitening/bias"}  # frozen; trained in the first epochs of a longer run


@pytest.mark.parametrize("name", {model.architecture: name for name, model in VALUES.models.items()}.values())
def test_model_computes_the_same_in_a_graph_as_without(name: str) -> None:
    """TensorFlow's graph optimizer fuses operations for bfloat16; one of its fusions forgets a leaky ReLU's slope."""
    import keras
    import tensorflow as tf

    config = VALUES.models[name]
    size = config.image_size or 0
    shape = SHAPES.get(config.dataset, (size, size, 3))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, *shape)).astype("float16" if config.dataset in VALUES.features else "uint8")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_model(config, shape, images.dtype, 10)
    finally:
        keras.config.set_dtype_policy(policy)
    for variable in model.variables:
        if len(variable.shape) == 1:  # scales and offsets: no branch starts as zero
            variable.assign(variable + 0.1 * rng.random(variable.shape))
    eager, graph = (np.log(call(images) + 1e-9) for call in (model, tf.function(model)))
    assert np.abs(eager - graph).mean() < 0.05 * eager.std()
