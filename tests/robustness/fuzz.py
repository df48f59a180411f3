"""`make fuzz`: fuzz the readers of archives. Any bytes must give examples or a `UserError`.

Atheris starts from the inputs in tests/robustness/corpus, guided by coverage. It writes an input that fails to the same
folder, where tests/robustness/test_fuzz.py reads it from then on.
"""

import gzip
import sys
import tempfile
from pathlib import Path

from stages.data import jpeg
from stages.data.formats import cifar, idx, image_folder
from stages.runtime.errors import UserError

CORPUS = Path(__file__).parent / "corpus"
SEED = 42
MAX_MEMORY = 1024  # MB
CLASSES = {"n1": "cat", "n2": "dog"}
BLOCK = 512  # of a tar archive


def read(data: bytes, folder: Path) -> None:
    """Read `data` as an archive in `folder`: the first byte selects the reader and whether to pack the rest first.

    Usually it is compressed here, and checksums are corrected: a fuzzer cannot get past them.
    """
    kind, data = data[:1], data[1:]
    compress = kind in b"ict"
    for file in folder.iterdir():
        file.unlink()
    try:
        if kind in b"iI":
            for prefix, split in zip(idx.PREFIX.values(), data.partition(b"--test--")[::2], strict=True):
                images, _, labels = split.partition(b"--labels--")
                for name, part in (("images-idx3", images), ("labels-idx1", labels)):
                    (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(_gzip(part) if compress else part)
            for _ in idx.examples(folder, CLASSES):
                pass
        elif kind in b"cC":
            (folder / "archive.tar.gz").write_bytes(_gzip(_with_checksums(data)) if compress else data)
            for _ in cifar.examples(folder, list(CLASSES)):
                pass
        else:
            (folder / "archive.tgz").write_bytes(_gzip(_with_checksums(data)) if compress else data)
            for _, _, image, _ in image_folder.examples(folder, CLASSES):
                jpeg.find_error(image, decode=True)
    except UserError as error:
        if not str(error).isprintable():
            raise ValueError("the error has more than one line") from error


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=1, mtime=0)


def _with_checksums(data: bytes) -> bytes:
    """Correct the checksums in the headers of a tar archive."""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
    for number, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == BLOCK:
            total = sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")
            blocks[number] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)


def main() -> None:
    """`python -m tests.robustness.fuzz SECONDS`."""
    import atheris

    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit("usage: python -m tests.robustness.fuzz SECONDS")
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as work:
        archives, found = Path(work) / "archives", Path(work) / "found"
        archives.mkdir()
        found.mkdir()
        options = {
            "max_total_time": sys.argv[1],
            "seed": SEED,
            "rss_limit_mb": MAX_MEMORY,
            "timeout": 30,
            "max_len": 1 << 16,
            "print_final_stats": 1,
            "artifact_prefix": f"{CORPUS}/",
        }
        arguments = [f"-{name}={value}" for name, value in options.items()]
        # Atheris writes new inputs to the first folder and reads the corpus from the second.
        atheris.Setup([sys.argv[0], *arguments, str(found), str(CORPUS)], lambda data: read(data, archives))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
