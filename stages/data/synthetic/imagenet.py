"""Generate ImageNet's archives, independently of their reader: a tar of tars, a tar of images, a list of classes."""

import io
from collections import defaultdict

import numpy as np
from PIL import Image

from stages.config.datasets import DatasetConfig
from stages.data.synthetic._archives import tar
from stages.data.synthetic._strokes import labeled_images, render_photo

MODES = {7: "L", 11: "CMYK"}  # ImageNet has files with one and with four channels: every 7th and 11th image


def generate(name: str, dataset: DatasetConfig) -> dict[str, bytes]:
    """Generate the three files of a dataset of photos of varying size: file name → content."""
    folders = list(dataset.classes)
    train: dict[str, dict[str, bytes]] = defaultdict(dict)
    for index, (image, label) in enumerate(labeled_images(name, dataset, "train", render_photo)):
        train[folders[label]][f"{folders[label]}_{index}.JPEG"] = _encode_jpeg(image, index)
    validation, labels = {}, []
    for index, (image, label) in enumerate(labeled_images(name, dataset, "test", render_photo)):
        validation[f"ILSVRC2012_val_{index + 1:08d}.JPEG"] = _encode_jpeg(image, index)
        labels.append(folders[label])
    return {
        "ILSVRC2012_img_train.tar": tar({f"{folder}.tar": tar(images) for folder, images in sorted(train.items())}),
        "ILSVRC2012_img_val.tar": tar(validation),
        "validation_labels.txt": "".join(f"{label}\n" for label in labels).encode(),
    }


def _encode_jpeg(pixels: np.ndarray, index: int) -> bytes:
    buffer = io.BytesIO()
    modes = [mode for every, mode in MODES.items() if index % every == 0]
    Image.fromarray(pixels).convert(modes[0] if modes else "RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
