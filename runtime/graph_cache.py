"""A cache on disk of graphs as ONNX Runtime has optimized them.

An entry is one file, named after its key: a line of JSON (what was noted about the graph, and the
digest of what follows), then the serialized model. Files are written whole or not at all, so many
processes may share a folder; a file that does not match its digest is ignored, with a warning, and
written again.

The folder is `$XDG_CACHE_HOME/onnxtape`, by default `~/.cache/onnxtape` (on macOS
`~/Library/Caches/onnxtape`, on Windows `%LOCALAPPDATA%/onnxtape`). In the environment,
``ONNXTAPE_CACHE=off`` switches the cache off, any other value is the folder to use instead;
``ONNXTAPE_CACHE_SIZE`` is the most megabytes that it may hold (1000 unless set), beyond which what
was used least recently goes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from onnxtape.runtime.files import replacing
from onnxtape.runtime.providers import Providers, load_onnxruntime, resolve_providers

_FOLDER_VARIABLE = "ONNXTAPE_CACHE"
_SIZE_VARIABLE = "ONNXTAPE_CACHE_SIZE"
_DEFAULT_MEGABYTES = 1000
#: A larger share of the cache than this is not worth one graph.
_LARGEST_SHARE = 4
_SUFFIX = ".graph"
#: Changes with the format of the files.
_FORMAT = 5


class CachedGraph(NamedTuple):
    """A serialized model, and JSON values that were noted about it."""

    model: bytes
    notes: dict[str, Any]


class GraphCache:
    """Optimized graphs in a folder.

    Args:
        folder: made when the first entry is written.
        limit: bytes that all entries may take together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def load(self, key: str) -> CachedGraph | None:
        """The entry under `key`; None where there is none, or none that can be used."""
        path = self._path(key)
        try:
            header, _, model = path.read_bytes().partition(b"\n")
        except OSError:
            return None  # not there; where something else is wrong, `store` says so
        try:
            read = json.loads(header)
            sound = read["sha256"] == hashlib.sha256(model).hexdigest()
            notes = read["notes"] if sound else None
        except (ValueError, KeyError, TypeError):
            notes = None
        if notes is None:
            warnings.warn(
                f"the cached graph {path} is damaged; it is compiled and written again",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        with contextlib.suppress(OSError):  # just removed by another process, or not ours to touch
            os.utime(path)  # the least recently used go first
        return CachedGraph(model, notes)

    def store(self, key: str, graph: CachedGraph) -> None:
        """Write an entry, then remove the least recently used ones beyond the limit."""
        if len(graph.model) > self.limit // _LARGEST_SHARE:
            return
        digest = hashlib.sha256(graph.model).hexdigest()
        header = json.dumps({"sha256": digest, "notes": graph.notes})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._path(key)) as temporary:
                temporary.write_bytes(header.encode() + b"\n" + graph.model)
            self._shrink()
        except OSError as error:
            self._warn_unusable(error)

    def size(self) -> int:
        """Bytes that the entries take."""
        return sum(size for _, size, _ in self._entries())

    def clear(self) -> int:
        """Remove all entries; returns how many there were."""
        entries = self._entries()
        for _, _, path in entries:
            path.unlink(missing_ok=True)
        return len(entries)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _entries(self) -> list[tuple[float, int, Path]]:
        """When each entry was last used, its size, and its path."""
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process has just removed it
            found.append((status.st_mtime, status.st_size, path))
        return found

    def _shrink(self) -> None:
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _warn_unusable(self, error: OSError) -> None:
        warnings.warn(
            f"compiled graphs cannot be cached in {self.folder}: {error}; set the environment "
            f"variable {_FOLDER_VARIABLE} to another folder, or to 'off'",
            RuntimeWarning,
            stacklevel=3,
        )


def graph_cache() -> GraphCache | None:
    """The cache that the environment asks for; None where it is switched off.

    Raises:
        ValueError: ONNXTAPE_CACHE_SIZE is no whole number.
    """
    wanted = os.environ.get(_FOLDER_VARIABLE, "")
    if wanted == "off":
        return None
    text = os.environ.get(_SIZE_VARIABLE) or str(_DEFAULT_MEGABYTES)
    if not text.strip().isdecimal():
        raise ValueError(
            f"the environment variable {_SIZE_VARIABLE} must be a whole number of megabytes, "
            f"got {text!r}"
        )
    folder = Path(wanted) if wanted else _user_folder() / "onnxtape"
    return GraphCache(folder, int(text) * 1_000_000)


def _user_folder() -> Path:
    """Where this system keeps what a user's programs can make again."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # the specification has relative ones ignored
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches"
    return Path.home() / ".cache"


def cache_key(parts: Mapping[str, str], providers: Providers) -> str:
    """The key of a graph: of what it is, and of all that decides how ONNX Runtime optimizes it.

    Args:
        parts: what the caller knows of the graph.
        providers: where it runs; see `resolve_providers`.
    """
    ort = load_onnxruntime()
    everything = {
        **parts,
        "format": _FORMAT,
        "onnxruntime": [ort.__version__, ort.get_build_info()],
        "providers": [[name, sorted(options.items())] for name, options in _plain(providers)],
        "processor": _processor(),
    }
    text = json.dumps(everything, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(providers: Providers) -> list[tuple[str, dict[str, Any]]]:
    return [(name, dict(options)) for name, options in resolve_providers(providers)]


@functools.cache
def _processor() -> str:
    """The processor and its features: layouts and kernels are chosen by them."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        # The first processor's; x86 calls its features flags.
        lines = information.read_text(errors="replace").partition("\n\n")[0].splitlines()
        known = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
        return platform.machine() + "".join(known)
    return f"{platform.machine()} {platform.processor()}"
