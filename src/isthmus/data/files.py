"""The bytes of a data file, gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from isthmus.errors import DataError

_GZIP = b"\x1f\x8b"


def read_bytes(path: str | Path) -> bytes:
    """Return a file's content, unpacked where it begins like gzip.

    Raises:
        DataError: missing, unreadable, or a truncated or damaged gzip file.
    """
    try:
        raw = Path(path).read_bytes()
        return gzip.decompress(raw) if raw.startswith(_GZIP) else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
