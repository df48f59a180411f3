"""Generate an archive of JPEG files in Imagenette's layout, independently of its reader."""

import io
from collections import Counter

import numpy as np
from PIL import Image

from stages.config.datasets import DatasetConfig
from stages.data.synthetic._archives import file_name, tar_gz
from stages.data.synthetic._strokes import labeled_images, render_photo

GRAYSCALE_EVERY = 20  # Imagenette contains a few JPEG files with one channel
NOT_IN_PRETRAINING = (0, 2)  # of every 5 test images of a class: named like files of ImageNet's validation split


def generate(name: str, dataset: DatasetConfig) -> dict[str, bytes]:
    """Generate the archive of a dataset of photos of varying size: file name → content."""
    file = file_name(dataset.files, ".tgz")
    top = file.removesuffix(".tgz")
    members = {f"{top}/noisy_imagenette.csv": b"path,noisy_labels_0\n"}  # not an image: readers skip it
    folders = list(dataset.classes)
    for split, split_folder in (("train", "train"), ("test", "val")):
        class_counts: Counter[int] = Counter()
        images = sorted(labeled_images(name, dataset, split, render_photo), key=lambda example: example[1])
        for index, (image, label) in enumerate(images):
            from_validation = split == "test" and class_counts[label] % 5 in NOT_IN_PRETRAINING
            class_counts[label] += 1
            stem = f"ILSVRC2012_val_{index:08d}" if from_validation else f"{folders[label]}_{index}"
            jpeg = _encode_jpeg(image, grayscale=index % GRAYSCALE_EVERY == 0)
            members[f"{top}/{split_folder}/{folders[label]}/{stem}.JPEG"] = jpeg
    return {file: tar_gz(members)}


def _encode_jpeg(pixels: np.ndarray, grayscale: bool) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert("L") if grayscale else image).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
