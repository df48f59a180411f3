"""Convert a saved model to LiteRT (formerly TensorFlow Lite), in float32 and with 8-bit integers, and run the result.

This module imports TensorFlow at the top: import it late.
"""

import time
import warnings
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from stages.prediction.saved_model import load_in
from stages.runtime import numerics

COMPARED_IMAGES = 500  # at most: the first of the test split
AGREEMENT = 0.8  # least share of predictions that an exported file must have in common with its model


def float32_twin(path: Path, temperature: float) -> keras.Model:
    """Load a model with all its layers in float32: LiteRT has no bfloat16, and float32 gives the same bytes every time.

    Args:
        path: the .keras file. No code that it may bring along is run.
        temperature: divides the logits.
    """
    twin = last = load_in(path, "float32")
    while isinstance(last, keras.Model):
        last, _, _ = last.outputs[0]._keras_history
    # The softmax is the last layer, or its activation. Between it and the last weights may stand a normalization
    name = "activation" if hasattr(last, "activation") else "call"
    softmax, factor = getattr(last, name), 1 / temperature
    setattr(last, name, lambda logits, **others: softmax(logits * factor, **others))
    return twin


def to_float32(model: keras.Model) -> bytes:
    """Convert a model that computes in float32. It takes a batch of one input, in the dtype of the model's."""
    return _convert(_converter(model, model.inputs[0].dtype))


def to_int8(model: keras.Model, examples: np.ndarray) -> bytes:
    """Convert weights and activations to 8-bit integers. It takes a batch of one input; its outputs are float32.

    Args:
        model: computes in float32.
        examples: inputs that show the ranges of the activations. uint8 pixels stay the input; features are float32.
    """
    if pixels := examples.dtype == np.uint8:
        # One black and one white value fix scale 1 and zero point 0: other ranges would misread raw pixels
        examples = examples.copy()
        examples[0].flat[[0, -1]] = 0, 255
    converter = _converter(model, "float32")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([example[np.newaxis].astype(np.float32)] for example in examples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if pixels:
        converter.inference_input_type = tf.uint8
    return _convert(converter)


def _converter(model: keras.Model, dtype: str) -> tf.lite.TFLiteConverter:
    dtype = "float32" if dtype == "float16" else dtype  # LiteRT takes no float16, which features are
    spec = tf.TensorSpec((1, *model.input_shape[1:]), dtype)
    function = tf.function(
        lambda inputs: model(tf.cast(inputs, model.inputs[0].dtype), training=False), autograph=False
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(spec)], model)
    converter.experimental_lower_to_saved_model = False  # else the weights would stay variables that nobody has set
    return converter


def _convert(converter: tf.lite.TFLiteConverter) -> bytes:
    with numerics.silent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses statistics that other ways of quantization need
        return converter.convert()


def run(content: bytes, inputs: np.ndarray, threads: int) -> tuple[np.ndarray, float]:
    """Run a converted model.

    Args:
        content: the file.
        inputs: (n, …), at least one.
        threads: number of the interpreter's threads.

    Returns:
        Its outputs (n, classes) float32, and the median of the seconds that an input took.
    """
    from ai_edge_litert.interpreter import Interpreter

    with numerics.silent():  # it announces its delegate
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs, seconds = [], []
    for example in inputs:
        interpreter.set_tensor(source["index"], example[np.newaxis].astype(source["dtype"]))
        start = time.perf_counter()
        interpreter.invoke()
        seconds.append(time.perf_counter() - start)
        outputs.append(interpreter.get_tensor(target["index"])[0])
    return np.stack(outputs), float(np.median(seconds))
