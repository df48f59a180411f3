"""Small datasets with faults that are known."""

import numpy as np

CLASSES = ["disk", "square"]


def shapes(number: int, seed: int, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Disks and squares on textured ground: (number, side, side, 3) uint8, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(number) % 2
    y, x = np.mgrid[:side, :side]
    images = np.empty((number, side, side, 3), np.uint8)
    for at, label in enumerate(labels):
        top, left = random.uniform(side / 3, side * 2 / 3, 2)
        radius = random.uniform(side / 6, side / 4)
        inside = np.hypot(y - top, x - left) if label == 0 else np.maximum(abs(y - top), abs(x - left))
        ground = np.kron(random.integers(60, 190, (8, 8, 3)), np.ones((side // 8, side // 8, 1)))
        pixels = np.where((inside < radius)[..., None], random.integers(0, 50, 3), ground)
        images[at] = np.clip(pixels + random.normal(0, 6, pixels.shape), 0, 255)
    return images, labels.astype(np.int32)
