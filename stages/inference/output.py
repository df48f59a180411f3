"""Predictions as text: a table, JSON or CSV, one line for each file."""

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stages.inference.image_files import Prediction
from stages.runtime.formulas import is_formula


def width(paths: Iterable[Path]) -> int:
    """Columns of a terminal for the longest of the names."""
    return max(_columns(printable(str(path))) for path in paths)


def table(predictions: Iterable[Prediction], classes: list[str], top: int, width: int) -> Iterator[str]:
    """Columns for people.

    Args:
        predictions: of files, in any number.
        classes: in the order of the probabilities.
        top: number of classes to show.
        width: of the first column, from `width`.
    """
    names = [printable(name) for name in classes]
    longest = max(map(_columns, names))
    for each in predictions:
        cells = [f"{_padded(names[label], longest)} {share:7.2%}" for label, share in _ranked(each, top)]
        note = f"  ({', '.join(each.conversions)})" if each.conversions else ""
        yield f"{_padded(printable(str(each.path)), width)}  {'   '.join(cells) or 'invalid: ' + each.error}{note}"


def json_lines(predictions: Iterable[Prediction], classes: list[str], top: int) -> Iterator[str]:
    """One JSON array, an element a line: file, and top or error."""
    yield "["
    last = ""
    for each in predictions:
        entry: dict[str, Any] = {"file": str(each.path)}
        if each.probabilities is None:
            entry["error"] = each.error
        else:
            entry["top"] = [
                {"class": classes[label], "probability": round(share, 6)} for label, share in _ranked(each, top)
            ]
            entry["conversions"] = each.conversions
        if last:
            yield f"{last},"
        last = json.dumps(entry, ensure_ascii=False)
    yield from [last, "]"] if last else ["]"]


def csv_lines(predictions: Iterable[Prediction], classes: list[str], top: int) -> Iterator[str]:
    """file, error, conversions, and class and probability of each rank. No cell is a formula for a spreadsheet."""
    ranks = range(1, min(top, len(classes)) + 1)
    yield _row(
        ["file", "error", "conversions", *(f"{name}_{rank}" for rank in ranks for name in ("class", "probability"))]
    )
    for each in predictions:
        cells = [cell for label, share in _ranked(each, top) for cell in (classes[label], f"{share:.6f}")]
        cells += [""] * (2 * len(ranks) - len(cells))
        yield _row([str(each.path), each.error, "; ".join(each.conversions), *cells])


def printable(text: str) -> str:
    """A name on one line: control characters, and bytes that are not text, as escapes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _columns(text: str) -> int:
    """Columns of a terminal that a text takes: two for a wide character, none for one that combines."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _ranked(prediction: Prediction, top: int) -> list[tuple[int, float]]:
    """Labels and probabilities, the highest first; ties in the order of the labels."""
    if prediction.probabilities is None:
        return []
    order = (-prediction.probabilities).argsort(kind="stable")[:top]
    return [(int(label), float(prediction.probabilities[label])) for label in order]


def _row(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(
        [f"'{cell}" if is_formula(cell) else cell for cell in map(printable, cells)]
    )
    return buffer.getvalue()
