"""`make predict MODEL=… IMAGES="…"`: the classes of image files according to a model."""

import argparse
import io
import os
import sys
from collections.abc import Iterator
from functools import partial

from tqdm import tqdm

from stages.config import params
from stages.inference.image_files import Prediction, find_images, predict_files
from stages.inference.locate import find_model
from stages.inference.output import csv_lines, printable, table
from stages.inference.predictor import Predictor
from stages.runtime.cli import guard
from stages.runtime.errors import UserError
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


def main() -> None:
    """Parse the command line and predict; a reader that has read enough, such as `head`, is no error."""
    arguments = parse()
    try:
        predict(arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    guard(main)
