"""Make probabilities mean what they say: a temperature, and the confidence below which a model is not sure.

Both are fitted on the validation split after training and stored in the model's signature.
"""

import numpy as np

SMALLEST = np.finfo(np.float32).tiny  # probability whose logarithm is taken; a float32 softmax may give 0
BOUNDS = (-3.0, 3.0)  # lowest and highest logarithm of the temperature
SPREAD = 0.5  # width of its prior: a few images, all correct, would else make a model sure of everything
NEVER_SURE = 1.01  # above every confidence


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature that makes log-probabilities most likely (Guo et al., "On calibration", 2017).

    Args:
        probabilities: what a model predicts, (images, classes).
        labels: the correct classes, (images,).

    Returns:
        The temperature with four digits, so that the last bits of an exponential do not change it; 1 if the
        probabilities are not finite.
    """
    from scipy.optimize import minimize_scalar

    if not np.isfinite(probabilities).all():
        return 1.0
    logs = _logs(probabilities)
    logs -= logs[np.arange(len(labels)), labels][:, np.newaxis]  # the correct class has 0

    def loss(log_temperature: float) -> float:
        losses = np.log(np.exp(np.clip(logs / np.exp(log_temperature), None, 700)).sum(axis=1))
        return float(losses.sum() + 0.5 * (log_temperature / SPREAD) ** 2)

    found = minimize_scalar(loss, bounds=BOUNDS, method="bounded", options={"xatol": 1e-6})
    return float(f"{np.exp(found.x):.4g}")


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide log-probabilities by a temperature; float32 (images, classes). No image changes its class."""
    if temperature == 1:
        return probabilities
    logs = _logs(probabilities) / temperature
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    scaled = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    rows, first = np.arange(len(scaled)), probabilities.argmax(axis=1)
    scaled[rows, first] = np.where(
        scaled.argmax(axis=1) == first, scaled[rows, first], np.nextafter(scaled.max(axis=1), np.float32(2))
    )
    return scaled


def fit_threshold(confidence: np.ndarray, correct: np.ndarray, accuracy: float) -> float:
    """Find the lowest confidence from which on validation images are as accurate as they shall be.

    Args:
        confidence: the highest probability of each image, (images,).
        correct: whether the class with it is correct, (images,).
        accuracy: the least share of correct ones among the images that are at least that confident.

    Returns:
        The confidence, rounded down to six digits; more than 1 if not even the most confident images suffice.
    """
    if not np.isfinite(confidence).all():
        return NEVER_SURE
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    shares = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    ends = np.append(ordered[1:] < ordered[:-1], True)  # equal confidences are above or below together
    enough = np.flatnonzero(ends & (shares >= accuracy))
    return float(np.floor(float(ordered[enough[-1]]) * 1e6) / 1e6) if len(enough) else NEVER_SURE


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, SMALLEST).astype(np.float64))
