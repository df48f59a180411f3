"""Write gzip files and tar archives whose bytes depend on their content only."""

import io
import struct
import tarfile
import zlib
from collections.abc import Iterable

# Magic number, deflate, no flags, no time, best compression, Unix. The gzip module writes another operating system in
# some versions of Python.
GZIP_HEADER = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 2, 3])


def gzip_file(data: bytes) -> bytes:
    """Compress `data` into the content of a gzip file."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = compressor.compress(data) + compressor.flush()
    return GZIP_HEADER + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def tar_gz(members: dict[str, bytes]) -> bytes:
    """Pack files into the content of a tar.gz archive, in the order of `members`: path → content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, data in members.items():
            info = tarfile.TarInfo(path)  # no time, no owner, mode 644
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip_file(buffer.getvalue())


def file_name(files: Iterable[str], suffix: str) -> str:
    """The first of `files` with this suffix, or a placeholder if there is none."""
    return next((file for file in files if file.endswith(suffix)), f"NAME{suffix}")
