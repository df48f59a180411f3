"""`make predict MODEL=… IMAGES="…"`: the classes of image files according to a model."""

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial

from tqdm import tqdm

from stages.config import params
from stages.config.datasets import is_formula
from stages.inference.image_files import Prediction, find_images, predict_files
from stages.inference.locate import find_model
from stages.inference.predictor import Predictor
from stages.prediction.saved_model import SYNTHETIC
from stages.runtime.cli import guard
from stages.runtime.errors import UserError, printable
from stages.runtime.progress import progress


def parse() -> argparse.Namespace:
    """The command line; `--help` explains it."""
    parser = argparse.ArgumentParser(prog="python -m tools.use.predict", description="Predict the classes of images.")
    parser.add_argument("model", metavar="MODEL", help="a name in data/models, or the path of a .keras file")
    parser.add_argument(
        "images",
        metavar="PATH",
        nargs="*",
        help='files, folders with images at any depth, or globs such as "photos/**/*.jpg"',
    )
    parser.add_argument("--top", metavar="K", type=int, default=3, help="number of classes to print (default: 3)")
    parser.add_argument("--csv", action="store_true", help="print CSV with a header")
    return parser.parse_args()


def predict(arguments: argparse.Namespace) -> None:
    """Print a line for each image; name invalid ones on standard error, too.

    Raises:
        UserError: there is no such model, or no valid image.
    """
    if arguments.top < 1:
        raise UserError(f"--top {arguments.top}: choose a positive number")
    if not arguments.images:
        raise UserError("no images are given; name files or folders, as in IMAGES=photos")
    values = params.load()
    threads = values.threads
    path = find_model(arguments.model)
    images = find_images(arguments.images)
    if not images:
        raise UserError(f"{' '.join(map(printable, arguments.images))}: no images; name files or other folders")
    predictor = Predictor(path, threads, values.max_pixels)
    failed = 0

    def predictions() -> Iterator[Prediction]:
        nonlocal failed
        for each in progress(predict_files(predictor, images, threads), len(images), path.stem, "images"):
            if each.error:
                failed += 1
                tqdm.write(f"{printable(str(each.path))}: {each.error}", file=sys.stderr)
            yield each

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # names in any script, whatever the locale
    width = max(len(printable(str(path))) for path in images)
    write = csv_lines if arguments.csv else partial(table, width=width)
    for line in write(predictions(), predictor.classes, arguments.top, predictor.source):
        tqdm.write(line)  # beside the bar, if both are on a terminal
    if failed == len(images):
        raise UserError(f"none of {len(images):,} files is a valid image; the lines above say why")


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


def _ranked(prediction: Prediction, classes: list[str], top: int) -> list[tuple[str, float]]:
    """Classes and probabilities, the highest first; ties in the order of the labels."""
    if prediction.probabilities is None:
        return []
    order = (-prediction.probabilities).argsort(kind="stable")[:top]
    return [(classes[label], float(prediction.probabilities[label])) for label in order]


def _row(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(
        [f"'{cell}" if is_formula(cell) else cell for cell in (cell and printable(cell) for cell in cells)]
    )
    return buffer.getvalue()


def main() -> None:
    """Parse the command line and predict; a reader that has read enough, such as `head`, is no error."""
    arguments = parse()
    try:
        predict(arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    guard(main)
