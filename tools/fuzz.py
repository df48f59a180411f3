"""`make fuzz`: throw bytes at the readers of archives for a while. Whatever they are, examples or a UserError come out.

Coverage-guided by Atheris, from the inputs in tests/corpus on: one that gets further than all before it is varied next.
A finding is left there as a file, and from then on tests/test_fuzz.py reads it too.
"""

import gzip
import sys
import tempfile
from pathlib import Path

from stages import jpeg
from stages.console import UserError
from stages.formats import cifar, idx, image_folder

CORPUS = Path(__file__).parents[1] / "tests" / "corpus"
SEED = 42
MEMORY = 1024  # MB, more is a finding
CLASSES = {"n1": "cat", "n2": "dog"}
BLOCK = 512  # of a tar archive


def read(data: bytes, folder: Path) -> None:
    """Give `data` to a reader, as an archive in `folder`: the first byte says to which, and whether it is packed first.

    Packing is left to us for the most part: checksums would keep a fuzzer out of what is behind them.
    """
    kind, data = data[:1], data[1:]
    unpacked = kind in b"ict"
    for file in folder.iterdir():
        file.unlink()
    try:
        if kind in b"iI":
            for prefix, split in zip(idx.PREFIX.values(), data.partition(b"--test--")[::2], strict=True):
                images, _, labels = split.partition(b"--labels--")
                for name, part in (("images-idx3", images), ("labels-idx1", labels)):
                    (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(_packed(part) if unpacked else part)
            for _ in idx.examples(folder, CLASSES):
                pass
        elif kind in b"cC":
            (folder / "archive.tar.gz").write_bytes(_packed(_summed(data)) if unpacked else data)
            for _ in cifar.examples(folder, list(CLASSES)):
                pass
        else:
            (folder / "archive.tgz").write_bytes(_packed(_summed(data)) if unpacked else data)
            for _, _, image, _ in image_folder.examples(folder, CLASSES):
                jpeg.fault(image, decode=True)
    except UserError as error:
        if not str(error).isprintable():
            raise ValueError("an error of more than one line") from error


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=1, mtime=0)


def _summed(data: bytes) -> bytes:
    """A tar archive whose headers have the right checksums."""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
    for number, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == BLOCK:
            total = sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")
            blocks[number] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)


def main() -> None:
    """`python -m tools.fuzz SECONDS`."""
    import atheris

    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit("usage: python -m tools.fuzz SECONDS")
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as work:
        archives, found = Path(work) / "archives", Path(work) / "found"
        archives.mkdir()
        found.mkdir()
        options = {
            "max_total_time": sys.argv[1],
            "seed": SEED,
            "rss_limit_mb": MEMORY,
            "timeout": 30,
            "max_len": 1 << 16,
            "print_final_stats": 1,
            "artifact_prefix": f"{CORPUS}/",
        }
        arguments = [f"-{name}={value}" for name, value in options.items()]
        # What is new goes to the first folder; the corpus is the second.
        atheris.Setup([sys.argv[0], *arguments, str(found), str(CORPUS)], lambda data: read(data, archives))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
