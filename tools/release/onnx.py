"""`python -m tools.release.onnx MODEL`: data/export/MODEL.onnx, by tf2onnx and onnxruntime, which are not installed."""

from pathlib import Path

import numpy as np

from stages.config import params
from stages.config.messages import lookup
from stages.evaluation import predictions
from stages.prediction.saved_model import read_signature
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.numerics import import_tensorflow


def onnx(name: str) -> None:
    """Write a model in float32 without augmentation, which takes any number of inputs; print how well it agrees.

    Raises:
        UserError: a package is missing, or the file often disagrees with the model; it is not kept.
    """
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise UserError(f"{error}; run `.venv/bin/pip install tf2onnx==1.17.0 onnx onnxruntime`") from None
    values = params.load()
    model, stored = lookup(values.resolved_models, name, "models"), predictions.read(name)
    import_tensorflow(values.threads, values.model_kernels(name), gpu=False)
    import tensorflow as tf

    from stages.data import reader
    from stages.inference.litert import AGREEMENT, COMPARED_IMAGES, float32_twin

    twin = float32_twin(paths.model(name), read_signature(paths.model(name)).get("temperature", 1.0))
    spec = tf.TensorSpec((None, *twin.input_shape[1:]), twin.inputs[0].dtype)
    function = tf.function(lambda inputs: twin(inputs, training=False), input_signature=[spec], autograph=False)
    path = Path("data/export", f"{name}.onnx")
    path.parent.mkdir(parents=True, exist_ok=True)
    tf2onnx.convert.from_function(function, [spec], output_path=str(path))
    count = min(COMPARED_IMAGES, len(stored.keys))
    images = next(reader.batches(model.dataset, f"test[:{count}]", count, model.image_size))["input"]
    session = onnxruntime.InferenceSession(str(path))
    (outputs,) = session.run(None, {session.get_inputs()[0].name: images})
    agreement = float(np.mean(outputs.argmax(axis=1) == stored.plain[:count]))
    agree = f"{agreement:.2%} of {count} predictions agree with the model's"
    if agreement < AGREEMENT:
        path.unlink()
        raise UserError(f"{path}: not written: {agree}, less than {AGREEMENT:.0%}")
    print(f"{path}: {path.stat().st_size:,} bytes, {agree}")


if __name__ == "__main__":
    run(onnx, "model")
