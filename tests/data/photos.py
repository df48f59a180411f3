"""Photos as people have them: three classes, JPEG and PNG, some rotated, some in two classes, one corrupt."""

import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("daisy", "rose", "tulip")
ORIENTATION = 0x0112  # tag of EXIF


def draw(name: str, rng: np.random.Generator) -> Image.Image:
    """Draw a flower of a class on a noisy gradient, in a random size, place and color."""
    width, height = (int(side) for side in rng.integers(96, 241, 2))
    slope = np.linspace(60, 200, height)[:, None, None] * rng.uniform(0.4, 1, 3)
    pixels = np.clip(slope + rng.normal(0, 25, (height, width, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(image)
    radius = min(width, height) * rng.uniform(0.25, 0.4)
    x, y = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.4, 0.6)
    color = tuple(int(value) for value in rng.integers(120, 256, 3))
    if name == "daisy":  # thin petals around a yellow disc
        for angle in np.arange(0, 2 * np.pi, np.pi / 6) + rng.uniform(0, 1):
            end = (x + radius * np.cos(angle), y + radius * np.sin(angle))
            canvas.line([(x, y), end], color, int(radius / 6) + 1)
        canvas.ellipse([x - radius / 4, y - radius / 4, x + radius / 4, y + radius / 4], "gold")
    elif name == "rose":  # rings
        for ring in np.arange(1, 0, -0.22):
            box = [x - radius * ring, y - radius * ring, x + radius * ring, y + radius * ring]
            canvas.ellipse(box, outline=color, width=int(radius / 10) + 1)
    else:  # a cup on a stem
        canvas.line([(x, y), (x, y + 2 * radius)], "green", int(radius / 6) + 1)
        points = [(-0.6, -0.9), (-0.3, -0.4), (0, -0.9), (0.3, -0.4), (0.6, -0.9), (0.4, 0.2), (-0.4, 0.2)]
        canvas.polygon([(x + radius * dx, y + radius * dy) for dx, dy in points], color)
    return image


def write_photos(folder: Path, number: int = 100, seed: int = 0) -> None:
    """Write `number` photos of each class to folders of the classes.

    Every third photo is PNG. Every twelfth is a JPEG file that is stored on its side, with EXIF data that turn it. The
    first two daisies are among the roses, too, and one tulip is truncated: the number of files is 3 × `number`.
    """
    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for index in range(number):
            image = draw(name, rng)
            path = folder / name / f"{name}_{index:03d}"
            if index % 3 == 2:
                image.save(path.with_suffix(".png"))
            elif index % 12 == 6:
                exif = Image.Exif()
                exif[ORIENTATION] = 6  # a viewer turns it by 90 degrees clockwise
                image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), quality=90, exif=exif)
            else:
                image.save(path.with_suffix(".jpg"), quality=90)
    for index in (0, 1):
        shutil.copy(folder / f"daisy/daisy_{index:03d}.jpg", folder / f"rose/rose_{index:03d}.jpg")
    corrupt = folder / "tulip/tulip_004.jpg"
    corrupt.write_bytes(corrupt.read_bytes()[:1500])


if __name__ == "__main__":
    write_photos(Path(sys.argv[1]))
