"""Writing files so that a reader never sees half of one, whatever stops the writer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20


def temporary_sibling(path: Path) -> Path:
    """A name that nobody uses yet, hidden, in the folder of `path`, hence on its file system."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def new_sibling(path: Path) -> Path:
    """An empty file at such a name.

    Raises:
        OSError: it cannot be made; the error names the folder, since the file is no user's.
    """
    temporary = temporary_sibling(path)
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path.parent)) from None
    return temporary


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the block a temporary path to write; when it ends well, that file becomes `path`.

    A process killed at any moment leaves the old file or the whole new one, and at worst a hidden
    ".<name>.<random>.tmp" beside it. After an exception the temporary file is removed.
    """
    temporary = new_sibling(path)
    try:
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # a writer that replaces the file may have made it private
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power failure."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder, and keeps its names without being asked.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path, size: int) -> str:
    """The SHA-256, in hexadecimal, of at most the first `size` bytes of a file."""
    digest = hashlib.sha256()
    left = size
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
