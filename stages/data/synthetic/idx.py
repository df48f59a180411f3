"""Generate MNIST's IDX files, from the published description of the format and independently of its reader."""

import struct

from stages.config.datasets import DatasetConfig
from stages.data.synthetic._archives import gzip_file
from stages.data.synthetic._strokes import labeled_images, render_grayscale


def generate(name: str, dataset: DatasetConfig) -> dict[str, bytes]:
    """Generate the files of a dataset of grayscale images: file name → content."""
    files = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = zip(*labeled_images(name, dataset, split, render_grayscale), strict=True)
        header = struct.pack(">IIII", 0x0803, len(images), *images[0].shape)
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip_file(header + b"".join(image.tobytes() for image in images))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip_file(struct.pack(">II", 0x0801, len(labels)) + bytes(labels))
    return files
