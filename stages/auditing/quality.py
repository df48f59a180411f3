"""Bad images: dark, bright, without information, oddly shaped, blurred, without contrast.

The first four are cleanvision's measures with its thresholds. A threshold for photographs calls every image of MNIST
bare of information. So an image also has to be far below the median of its dataset. Contrast and sharpness are measured
here, because cleanvision missed most images that were blurred or washed out on purpose (docs/audit.md).
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import pandas as pd


MAX_SIDE = 256  # of a larger image, a copy of this size is measured


class Limit(NamedTuple):
    """A measure is bad below `threshold` and below `share` of the median of the dataset."""

    threshold: float
    share: float


LIMITS = {
    "dark": Limit(0.32, 1 / 2),
    "bright": Limit(0.05, 1 / 4),
    "low_information": Limit(0.3, 1 / 4),
    "odd_shape": Limit(0.35, 1 / 2),
    "blurred": Limit(np.inf, 1 / 4),
    "low_contrast": Limit(np.inf, 1 / 5),
}
MEASURES = tuple(LIMITS)  # by the kind of finding that a low value is


def measure(image: Image.Image) -> dict[str, float]:
    """Each measure of an image, gray or RGB: higher is better, 0 is the worst.

    Returns:
        dark: brightness, 0 to 1, that 99 % of the pixels do not exceed. bright: 1 - the brightness that 5 % do not
        exceed. low_information: entropy in bits / 10. odd_shape: shorter side / longer side. blurred: standard
        deviation of the Laplacian / that of the gray values. low_contrast: standard deviation of the gray values.
    """
    from cleanvision.issue_managers.image_property import calc_aspect_ratio, calc_entropy, calc_percentile_brightness

    shape = calc_aspect_ratio(image)
    if max(image.size) > MAX_SIDE:
        image = image.copy()
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    low, high = calc_percentile_brightness(image, percentiles=[5, 99])
    gray = np.asarray(image.convert("L"), np.float32)
    contrast = float(gray.std())
    inner = gray[1:-1, 1:-1]
    laplacian = 4 * inner - gray[:-2, 1:-1] - gray[2:, 1:-1] - gray[1:-1, :-2] - gray[1:-1, 2:]
    return {
        "dark": float(high),
        "bright": 1 - float(low),
        "low_information": calc_entropy(image) / 10,
        "odd_shape": shape,
        "blurred": float(laplacian.std()) / (contrast + 1) if laplacian.size else 1.0,
        "low_contrast": contrast,
    }


def find(measures: dict[str, np.ndarray]) -> "pd.DataFrame":
    """Bad images as rows image, kind, score, partner: the score is the measure / its median, the partner -1."""
    import pandas as pd

    found = []
    for kind, values in measures.items():
        median = float(np.median(values))
        chosen = np.flatnonzero(values < min(LIMITS[kind].threshold, median * LIMITS[kind].share))
        found.append(
            pd.DataFrame({"image": chosen, "kind": kind, "score": values[chosen] / (median or 1.0), "partner": -1})
        )
    return pd.concat(found, ignore_index=True)
