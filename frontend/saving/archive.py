"""The file of a saved model: a zip archive of two JSON texts and the state, none of it compressed.

It may come from anybody: entries are known by name, nothing is unpacked under a name of the
archive's, and no entry is larger than the file.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxtape.runtime.errors import CheckpointError
from onnxtape.runtime.files import replacing

METADATA, CONFIG, STATE = "metadata.json", "config.json", "state.safetensors"
#: More than any model's configuration has, in bytes.
_MOST_JSON = 256 * 2**20
#: Zip archives hold times; the same model is the same file.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, texts: Mapping[str, Any], state: Path) -> None:
    """Write a saved model, whole or not at all.

    Args:
        texts: what goes into METADATA and CONFIG as JSON.
        state: the file that becomes STATE.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, _NO_TIME), json.dumps(text, allow_nan=False))
        with (
            state.open("rb") as source,
            archive.open(zipfile.ZipInfo(STATE, _NO_TIME), "w", force_zip64=True) as target,
        ):
            shutil.copyfileobj(source, target)


@contextmanager
def opened_archive(path: str | os.PathLike[str]) -> Iterator[SavedModel]:
    """Open a saved model, whose entries have been checked.

    Raises:
        CheckpointError: there is no such file, or it is none of this kind.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"There is no saved model {os.fspath(path)}.")
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path)
            yield SavedModel(archive, path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise CheckpointError(
            f"{os.fspath(path)} is not a saved model, or is damaged: {error}."
        ) from error


class SavedModel:
    """An open file of a saved model."""

    def __init__(self, archive: zipfile.ZipFile, path: str | os.PathLike[str]) -> None:
        self._archive, self._path = archive, path

    def json(self, name: str) -> Any:
        """One of its texts.

        Raises:
            CheckpointError: it is no JSON.
        """
        try:
            return json.loads(self._archive.read(name))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{os.fspath(self._path)} is damaged: its {name} is no JSON ({error})."
            ) from error

    @contextmanager
    def state(self) -> Iterator[Path]:
        """The state, as a file of its own for the while."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / STATE
            with self._archive.open(STATE) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target)
            yield file

    @property
    def state_size(self) -> int:
        """The state's size in bytes."""
        return self._archive.getinfo(STATE).file_size


def _check(archive: zipfile.ZipFile, path: str | os.PathLike[str]) -> None:
    entries = archive.infolist()
    names = sorted(entry.filename for entry in entries)
    text = os.fspath(path)
    if "model.weights.h5" in names:
        raise CheckpointError(
            f"{text} is a model that Keras has saved: load it with Keras, and give it to "
            "ot.from_keras"
        )
    if names != sorted((METADATA, CONFIG, STATE)):
        raise CheckpointError(
            f"{text} is not a saved model: one holds {METADATA}, {CONFIG} and {STATE}, not "
            f"{', '.join(names[:5]) or 'nothing'}."
        )
    stored = all(e.compress_type == zipfile.ZIP_STORED for e in entries)
    if not stored or any(e.file_size != e.compress_size for e in entries):
        raise CheckpointError(f"{text} is not a saved model: it is compressed, and none is.")
    if sum(e.file_size for e in entries) > Path(path).stat().st_size:
        raise CheckpointError(f"{text} is damaged: its entries are larger than the file.")
    if any(e.file_size > _MOST_JSON for e in entries if e.filename != STATE):
        raise CheckpointError(f"{text} is not a saved model: its configuration is too large.")
