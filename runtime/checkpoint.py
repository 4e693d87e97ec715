"""State files: named arrays in the safetensors format, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxtape.runtime.dtypes import DTYPES, numpy_dtype
from onnxtape.runtime.errors import CheckpointError
from onnxtape.runtime.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What a state entry is made of: its dtype's name and its shape.
Spec: TypeAlias = tuple[str, tuple[int, ...]]

_NAMES = {dtype.safetensors: name for name, dtype in DTYPES.items()}
_LISTED = 8


def save_state(
    path: str | os.PathLike[str],
    state: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays to one safetensors file.

    The file is written beside `path`, flushed to the disk and then renamed to `path`, so an
    earlier file there stays intact until the new one is complete.

    Args:
        path: the file; its folder must exist.
        state: arrays of any shape with a dtype of `onnxtape.runtime.dtypes.DTYPES`.
        metadata: text to keep in the file's header.

    Raises:
        CheckpointError: an array has a dtype that a state file cannot hold.
        OSError: the file cannot be written.
    """
    from safetensors.numpy import save_file

    arrays = {}
    for name, value in state.items():
        array = np.asarray(value, order="C")
        if array.dtype.name not in DTYPES:
            raise CheckpointError(
                f"The state entry {name!r} has dtype {array.dtype}, which a state file cannot "
                f"hold; it can hold {', '.join(DTYPES)}."
            )
        arrays[name] = array
    with replacing(Path(path)) as temporary:
        # Given an empty dictionary and no arrays, safetensors writes a header it cannot read.
        save_file(arrays, temporary, metadata=dict(metadata) if metadata else None)


def load_state(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read the arrays of a state file; each is writable and owned by the caller.

    Raises:
        CheckpointError: there is no such file, it is cut short or no safetensors file, or it holds
            a dtype that has no place here.
    """
    with _opened(Path(path)) as file:
        return {name: _array(file, name, path) for name in file.keys()}  # noqa: SIM118


def read_specs(path: str | os.PathLike[str]) -> dict[str, Spec]:
    """Read the dtypes and shapes in a state file, but none of its data.

    Raises:
        CheckpointError: as `load_state`.
    """
    with _opened(Path(path)) as file:
        return {name: _spec(file, name, path) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the text that `save_state` was given as `metadata`.

    Raises:
        CheckpointError: as `load_state`.
    """
    with _opened(Path(path)) as file:
        return dict(file.metadata() or {})


def specs_of(state: Mapping[str, NDArray[Any]]) -> dict[str, Spec]:
    """The dtype and shape of each array."""
    return {name: (array.dtype.name, tuple(array.shape)) for name, array in state.items()}


def check_state(
    expected: Mapping[str, Spec],
    found: Mapping[str, Spec],
    *,
    source: str = "this state",
) -> None:
    """Require that `found` has exactly the entries, dtypes and shapes of `expected`.

    Args:
        expected: what the model needs.
        found: what a file or a dictionary holds, e.g. from `specs_of`.
        source: what `found` is, for the message.

    Raises:
        CheckpointError: they differ; the message lists the missing, unexpected and mismatched
            entries.
    """
    problems = []
    if missing := [name for name in expected if name not in found]:
        problems.append(f"missing: {_listed(missing)}")
    if unexpected := [name for name in found if name not in expected]:
        problems.append(f"not in the model: {_listed(unexpected)}")
    different = [
        f"{name} is {_written(found[name])}, the model has {_written(spec)}"
        for name, spec in expected.items()
        if name in found and found[name] != spec
    ]
    if different:
        problems.append(f"different: {_listed(different)}")
    if problems:
        rates = [_has_entry(side, "learning_rate") for side in (found, expected)]
        counts = [_has_entry(side, "iteration") for side in (found, expected)]
        note = ""
        if rates[0] != rates[1] and all(counts):
            with_rate, without = ("it", "the model") if rates[0] else ("the model", "it")
            note = (
                f" In {with_rate}, the learning rate is a number, which is part of the state; in "
                f"{without}, a schedule makes it: give both optimizers the same."
            )
        raise CheckpointError(f"{source} belongs to another model: {'; '.join(problems)}.{note}")


def _has_entry(names: Iterable[str], last: str) -> bool:
    """Whether there is an optimizer's entry of this name."""
    return any(name.rpartition("/")[2] == last for name in names)


def _written(spec: Spec) -> str:
    dtype, shape = spec
    return f"{dtype}[{', '.join(map(str, shape))}]"


def _listed(items: list[str]) -> str:
    shown = ", ".join(items[:_LISTED])
    return shown if len(items) <= _LISTED else f"{shown} and {len(items) - _LISTED} more"


def _opened(path: Path) -> Any:
    """The open safetensors file, whose header has been checked against the file's length."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"There is no state file {path}.")
    try:
        return safe_open(path, framework="np")
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a state file, or was cut short: {error}.") from error


def _spec(file: Any, name: str, path: str | os.PathLike[str]) -> Spec:
    header = file.get_slice(name)
    code = header.get_dtype()
    if code not in _NAMES:
        raise CheckpointError(
            f"{os.fspath(path)} holds {name!r} with the safetensors dtype {code}, which is not "
            f"supported; supported are {', '.join(DTYPES)}."
        )
    return _NAMES[code], tuple(header.get_shape())


def _array(file: Any, name: str, path: str | os.PathLike[str]) -> NDArray[Any]:
    dtype, _ = _spec(file, name, path)
    try:
        numpy_dtype(dtype)
    except ImportError as error:
        raise CheckpointError(f"{os.fspath(path)} holds {name!r} in {dtype}. {error}") from error
    array: NDArray[Any] = file.get_tensor(name)
    return array
