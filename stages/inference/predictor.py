"""Predict the classes of images with a saved model. This module imports TensorFlow late: its import is cheap."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stages.config.plugins import load_plugin
from stages.data.jpeg import MAX_PIXELS
from stages.inference.locate import find_weights
from stages.prediction.calibration import with_temperature
from stages.prediction.forward import compile_forward
from stages.prediction.novelty import similarity
from stages.prediction.saved_model import read_class_means, read_signature
from stages.prediction.test_time._mean import mean_prediction
from stages.runtime import numerics
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    from stages.inference.grad_cam import GradCam


class Answer(NamedTuple):
    """What a model says of an image."""

    probabilities: np.ndarray  # (classes,) float32
    verdict: str | None  # none of these, not sure, or None


class Predictor:
    """A model in memory that takes image files. Threads may share `decode`; predict in one thread at a time."""

    def __init__(self, path: Path, threads: int, max_pixels: int = MAX_PIXELS) -> None:
        """Load a model, and the backbone if it takes features.

        Args:
            path: a .keras file of this project. No code that it may bring along is run.
            threads: TensorFlow's intra-op threads.
            max_pixels: most pixels of an image file.

        Raises:
            UserError: the file is not a model of this project, or the weights of its backbone are missing.
        """
        self.signature = read_signature(path)
        self.classes: list[str] = self.signature["classes"]  # in the order of the probabilities
        self.source: str | None = self.signature.get("source")  # synthetic or real; None: it does not say
        backbone = self.signature["backbone"]
        weights = find_weights(backbone) if backbone else None
        numerics.import_tensorflow(threads, self.signature.get("kernels", "native"))
        import keras
        import tensorflow as tf

        from stages.data.reader import resize
        from stages.kernels.replacement import with_kernels
        from stages.prediction.eval_batch_size import eval_batch_size

        tf.config.experimental.enable_op_determinism()
        try:
            self.model: keras.Model = keras.models.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # zipfile, HDF5 and Keras raise errors of their own
            raise UserError(f"{path}: corrupt: {' '.join(str(error).split())[:200]}; train the model again") from None
        self._class_means = read_class_means(path)
        self.batch_size = eval_batch_size(self.model)  # images that are predicted at once
        self._forward = compile_forward(with_kernels(self.model))
        self.backbone: keras.Model | None = None
        self._extract: Any = None
        if weights:
            from stages.data.extraction import BATCH_SIZE
            from stages.inference.backbone import build_backbone

            self.backbone = build_backbone(backbone, weights)
            self._extract = compile_forward(self.backbone, "float16")  # the number format in which features are stored
            self.batch_size = BATCH_SIZE
        self.image_shape: tuple[int, int, int] = (self.backbone or self.model).input_shape[1:]
        self.fit: str = (backbone or self.signature).get("fit", "crop")
        height, width, channels = self.image_shape
        # A graph, as where the reader resizes: eagerly, each operation costs as much as a small image
        self._resize = tf.function(
            lambda image: resize(image, (height, width), self.fit),
            input_signature=[tf.TensorSpec((None, None, channels), tf.uint8)],
            autograph=False,
        )
        self.max_pixels = max_pixels
        part = self.signature["test_time"]
        options = {key: value for key, value in (part or {}).items() if key != "name"}
        self._views = load_plugin("prediction.test_time", part["name"]).build(**options) if part else None

    def decode(self, data: bytes) -> tuple[np.ndarray, list[str]]:
        """Decode an image file to the pixels that training and evaluation see of it.

        Returns:
            uint8 `image_shape`, and the conversions that the file took, such as "EXIF orientation".

        Raises:
            ValueError: the file is invalid; the message continues "the file …".
        """
        import tensorflow as tf

        from stages.data.convert import decode

        with tf.device("cpu"):  # where tf.data decodes, too
            pixels, applied = decode(data, self.image_shape[2], self.max_pixels)
            return self._resize(pixels).numpy(), applied

    def predict(self, images: Sequence[bytes]) -> np.ndarray:
        """Predict image files of any common format; all their pixels are in memory.

        Args:
            images: contents of the files.

        Returns:
            Probabilities, float32 (images, classes).

        Raises:
            ValueError: a file is invalid; the message continues "the file …".
        """
        pixels = np.array([self.decode(data)[0] for data in images], np.uint8)
        return self.predict_pixels(pixels.reshape(len(images), *self.image_shape))

    def predict_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Predict images from `decode`, with the test-time augmentation that the model was evaluated with.

        Args:
            pixels: uint8 (images, *image_shape), any number; `batch_size` are computed at once.

        Returns:
            Probabilities, float32 (images, classes).
        """
        return self._predict(self.inputs(pixels))

    def answer(self, pixels: np.ndarray) -> list[Answer]:
        """Predict images as `predict_pixels` does, with a verdict on each.

        Args:
            pixels: uint8 (images, *image_shape), from `decode`.

        Returns:
            An answer for each image.
        """
        inputs = self.inputs(pixels)
        probabilities = self._predict(inputs)
        verdicts = np.full(len(pixels), None, object)
        verdicts[probabilities.max(axis=1) < (self.signature.get("not_sure_below") or 0)] = "not sure"
        if self._class_means is not None:
            unlike = similarity(inputs, self._class_means) < self.signature["none_of_these_below"]
            verdicts[unlike] = "none of these"
        return [Answer(*each) for each in zip(probabilities, verdicts, strict=True)]

    def explain(self, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Which parts of images speak for a class: the heat maps of Grad-CAM.

        Args:
            pixels: uint8 (images, *image_shape), from `decode`; a few.
            labels: the class to explain in each image, (images,).

        Returns:
            float32 (images, height, width) in [0, 1]; None if the model has no convolution.
        """
        if self._grad_cam is None:
            return None
        return self._grad_cam(self.inputs(pixels), labels, self.image_shape[:2])

    @cached_property
    def _grad_cam(self) -> "GradCam | None":
        from stages.inference.grad_cam import GradCam

        try:
            return GradCam(self.model)
        except ValueError:
            return None

    def inputs(self, pixels: np.ndarray) -> np.ndarray:
        """What the model itself takes: the pixels, or their features as float16."""
        if self._extract is None:
            return pixels
        return self._in_batches(self._extract, pixels, np.empty((0, *self.model.input_shape[1:]), np.float16))

    def _predict(self, inputs: np.ndarray) -> np.ndarray:
        """Predict what `inputs` returns: probabilities, float32 (images, classes)."""
        if self._views is None:
            found = self._probabilities(inputs)
        else:
            found = mean_prediction(self._views(inputs), self._probabilities)[0]
        return with_temperature(found, self.signature.get("temperature", 1.0))

    def _probabilities(self, inputs: np.ndarray) -> np.ndarray:
        return self._in_batches(self._forward, inputs, np.empty((0, len(self.classes)), np.float32))

    def _in_batches(self, forward: Any, inputs: np.ndarray, nothing: np.ndarray) -> np.ndarray:
        starts = range(0, len(inputs), self.batch_size)
        return np.concatenate([nothing, *(forward(inputs[at : at + self.batch_size]).numpy() for at in starts)])
