"""Predictions as text: a table or CSV, one line for each file."""

import csv
import io
from collections.abc import Iterable, Iterator

from stages.inference.image_files import Prediction
from stages.prediction.saved_model import SYNTHETIC
from stages.runtime.formulas import is_formula


def table(
    predictions: Iterable[Prediction], classes: list[str], top: int, source: str | None, width: int = 0
) -> Iterator[str]:
    """Columns for people, and at the end a line if the model was trained on synthetic data.

    Args:
        predictions: what became of each file.
        classes: class names in the order of the probabilities.
        top: number of classes to show.
        source: the data that the model was trained on: synthetic, real, or None if it is not known.
        width: characters for the names of the files.
    """
    longest = max(map(len, classes))
    answered = False
    for each in predictions:
        answered |= not each.error
        cells = [f"{printable(name):{longest}} {share:7.2%}" for name, share in _ranked(each, classes, top)]
        notes = [*([each.verdict] if each.verdict else []), *each.conversions]
        note = f"  ({', '.join(notes)})" if notes else ""
        yield f"{printable(str(each.path)):{width}}  {'   '.join(cells) or 'invalid: ' + each.error}{note}"
    if answered and source == "synthetic":
        yield f"The model was {SYNTHETIC}."


def csv_lines(predictions: Iterable[Prediction], classes: list[str], top: int, source: str | None) -> Iterator[str]:
    """A row for each file, with class and probability of each rank. Arguments as `table`; no cell is a formula."""
    ranks = range(1, min(top, len(classes)) + 1)
    columns = [f"{name}_{rank}" for rank in ranks for name in ("class", "probability")]
    yield _row(["file", "error", "verdict", "conversions", "source", *columns])
    for each in predictions:
        cells = [cell for name, share in _ranked(each, classes, top) for cell in (name, f"{share:.6f}")]
        cells += [""] * (len(columns) - len(cells))
        yield _row([str(each.path), each.error, each.verdict or "", "; ".join(each.conversions), source or "", *cells])


def printable(text: str) -> str:
    """A name on one line: control characters, and bytes that are not text, as escapes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _ranked(prediction: Prediction, classes: list[str], top: int) -> list[tuple[str, float]]:
    """Classes and probabilities, the highest first; ties in the order of the labels."""
    if prediction.probabilities is None:
        return []
    order = (-prediction.probabilities).argsort(kind="stable")[:top]
    return [(classes[label], float(prediction.probabilities[label])) for label in order]


def _row(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(
        [f"'{cell}" if is_formula(cell) else cell for cell in map(printable, cells)]
    )
    return buffer.getvalue()
