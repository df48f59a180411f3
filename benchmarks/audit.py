"""Precision and recall of the audit: duplicates, bad images and label errors that are planted in MNIST.

Meaningful only on the real data. The table is a remark of the result: it compares no contenders.
"""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.common import Result, inside, log
from stages.config import params
from stages.reporting.markdown import table
from stages.runtime.errors import UserError
from stages.runtime.numerics import import_tensorflow

if TYPE_CHECKING:
    import pandas as pd

DATASET = "mnist"
RATES = (0.01, 0.02, 0.05, 0.1)
SIMILARITY, RATIO, FOLDS = 0.8, 0.35, 5
SPLITS = ("train", "test")


def _jpeg(pixels: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer))


def _blurred(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))


def _noise(pixels: np.ndarray, mean: Any, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(int(pixels.sum())).normal(0, deviation, pixels.shape)
    return np.clip(mean + noise, 0, 255).astype(np.uint8)


Change = Callable[[np.ndarray], np.ndarray]

COPIES: dict[str, Change] = {
    "the same pixels": lambda pixels: pixels,
    "JPEG, quality 60": _jpeg,
    "mirrored": lambda pixels: pixels[:, ::-1],
    "brightness": lambda pixels: (pixels * 0.7 + 30).astype(np.uint8),
    "noise": lambda pixels: _noise(pixels, pixels, 8),
    "shifted by 1 pixel": lambda pixels: np.roll(pixels, 1, axis=1),
}
BAD: dict[str, Change] = {
    "dark": lambda pixels: (pixels * 0.15).astype(np.uint8),
    "washed out": lambda pixels: (255 - (255 - pixels.astype(int)) * 0.08).astype(np.uint8),
    "blank": lambda pixels: np.full_like(pixels, 37),
    "noise alone": lambda pixels: _noise(pixels, 128, 2),
    "blurred": _blurred,
}


def measure(quick: bool) -> Result:
    """8,000 training and 4,000 test images at four rates; with `quick` a quarter of them at one rate."""
    if params.load().is_synthetic(params.load().datasets[DATASET]) and not quick:
        raise UserError(f"benchmarks: {DATASET}: on synthetic data; set source: real")
    return compare(
        {"train": 2_000, "test": 1_000} if quick else {"train": 8_000, "test": 4_000}, RATES[-1:] if quick else RATES
    )


def compare(sizes: dict[str, int], rates: tuple[float, ...]) -> Result:
    """Plant faults in the first images of each split at each rate, and look for them."""
    import_tensorflow(params.load().threads, gpu=False)
    from stages.data import reader

    originals = {split: reader.load(DATASET, f"{split}[:{size}]") for split, size in sizes.items()}
    columns = [_at(rate, originals) for rate in rates]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    head = ["precision / recall", *(f"{rate:.0%}" for rate in rates)]
    text = f"Planted in {sizes['train']:,} training and {sizes['test']:,} test images of {DATASET}, at each rate."
    return Result([], [], [text, table(head, rows, ["", *["r"] * len(rates)])])


def _at(rate: float, originals: dict[str, Any]) -> dict[str, str]:
    """The cells of one rate: copies of training images in the test split, bad training images, wrong labels in both."""
    from stages.auditing import duplicates, labels, quality
    from stages.auditing.images import describe
    from stages.data import reader, writer

    random = np.random.default_rng(0)
    pixels = {split: arrays.inputs[..., 0].copy() for split, arrays in originals.items()}
    given = {split: arrays.labels.copy() for split, arrays in originals.items()}
    number = {split: len(labels_) for split, labels_ in given.items()}
    planted: dict[tuple[str, int], str] = {}
    sources = random.permutation(number["train"])
    for at, (target, source) in enumerate(zip(_some(random, number["test"], rate), sources, strict=False)):
        kind = list(COPIES)[at % len(COPIES)]
        pixels["test"][target], given["test"][target] = COPIES[kind](pixels["train"][source]), given["train"][source]
        planted["test", target] = kind
    for at, source in enumerate(sources[-round(rate * number["train"]) :]):
        kind = list(BAD)[at % len(BAD)]
        pixels["train"][source] = BAD[kind](pixels["train"][source])
        planted["train", source] = kind
    wrong = set()
    for split in SPLITS:
        for at in _some(random, number[split], rate):
            if (split, at) not in planted:
                given[split][at] = (given[split][at] + random.integers(1, 10)) % 10
                wrong.add((split, int(at)))
    names = reader.info(DATASET).features["label"].names
    examples = (
        (split, str(at), image[..., None], int(given[split][at]))
        for split in SPLITS
        for at, image in enumerate(pixels[split])
    )
    with tempfile.TemporaryDirectory() as folder, inside(Path(folder)):
        writer.write("planted", names, SPLITS, examples)
        images = describe("planted")
        found = {
            "copies": duplicates.find(images, SIMILARITY, RATIO),
            "bad": quality.find(images.measures),
            "wrong": labels.find(images, "planted", False, FOLDS)[0],
        }
    log(f"{rate:.0%}: {len(planted)} images and {len(wrong)} labels planted")

    def named(rows: "pd.DataFrame") -> set[tuple[str, int]]:
        at = rows["image"].to_numpy(int)
        return {(images.splits[images.split[each]], int(images.keys[each])) for each in at}

    copies = found["copies"]
    across = copies[images.split[copies["image"]] != images.split[copies["partner"]]]
    flagged = {"copies": named(across), "bad": named(found["bad"]), "wrong": named(found["wrong"]) - set(planted)}
    cells = {}
    for title, kinds, hits in (("duplicates", COPIES, flagged["copies"]), ("bad images", BAD, flagged["bad"])):
        targets = {key for key, kind in planted.items() if kind in kinds}
        cells[f"{title}, all"] = _cell(hits, targets)
        for kind in kinds:
            own = {key for key in targets if planted[key] == kind}
            cells[f"{title}: {kind}, recall"] = f"{len(own & hits) / max(1, len(own)):.2f}"
    cells["label errors"] = _cell(flagged["wrong"], wrong)
    return cells


def _some(random: np.random.Generator, number: int, rate: float) -> np.ndarray:
    return random.choice(number, round(rate * number), replace=False)


def _cell(flagged: set[tuple[str, int]], targets: set[tuple[str, int]]) -> str:
    hits = len(flagged & targets)
    return f"{hits / max(1, len(flagged)):.2f} / {hits / max(1, len(targets)):.2f}"
