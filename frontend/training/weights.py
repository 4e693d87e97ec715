"""The weights of a model in a safetensors file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from onnxtape.ordered_state import load_ordered, save_ordered
from onnxtape.runtime.checkpoint import check_state
from onnxtape.runtime.errors import CheckpointError
from onnxtape.saving.models import SUFFIX as MODEL_SUFFIX
from onnxtape.saving.models import load_weights_of
from onnxtape.variable import Variable

SUFFIX = ".safetensors"


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Require a safetensors file.

    Raises:
        ValueError: the name ends otherwise.
    """
    if not os.fspath(path).endswith(SUFFIX):
        raise ValueError(
            f"weights are kept in safetensors files: call it "
            f"'{_stem(os.fspath(path))}{SUFFIX}', not '{os.fspath(path)}'"
        )


def _stem(path: str) -> str:
    for suffix in (".weights.h5", ".keras", ".h5", ".ckpt", ".pt", ".npz", ".onnxtape"):
        path = path.removesuffix(suffix)
    return path


def _named(model: Any) -> dict[str, Variable]:
    """The weights by their paths, which are made unique by numbers."""
    if not model.weights:
        raise ValueError(
            f"model '{model.name}' has no weights yet: call it on data or build(input_shape) first"
        )
    named: dict[str, Variable] = {}
    for variable in model.weights:
        name, count = variable.path, 0
        while name in named:
            count += 1
            name = f"{variable.path}_{count}"
        named[name] = variable
    return named


def save_weights(model: Any, path: str | os.PathLike[str], overwrite: bool) -> None:
    """See `Trainer.save_weights`."""
    check_suffix(path)
    if not overwrite and Path(path).exists():
        raise FileExistsError(f"'{os.fspath(path)}' is there already, and overwrite is False")
    arrays = {name: variable.numpy() for name, variable in _named(model).items()}
    save_ordered(path, arrays)


def load_weights(model: Any, path: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
    """See `Trainer.load_weights`."""
    if os.fspath(path).endswith(MODEL_SUFFIX):
        if skip_mismatch:
            raise ValueError("skip_mismatch is for files of weights alone: see save_weights")
        load_weights_of(model, path)
        return
    named = _named(model)
    found, is_ordered = load_ordered(path)
    if is_ordered and found.keys() != named.keys() and len(found) == len(named):
        # Layers that were named by counting have other names in the next model: go by order.
        found = dict(zip(named, found.values(), strict=True))
    if skip_mismatch:
        named = {
            name: variable
            for name, variable in named.items()
            if name in found and found[name].shape == variable.shape
        }
        found = {name: found[name] for name in named}
    check_state(
        {name: (v.dtype.name, v.shape) for name, v in named.items()},
        {name: (array.dtype.name, array.shape) for name, array in found.items()},
        source=os.fspath(path),
    )
    for name, variable in named.items():
        variable.assign(found[name])


__all__ = ["CheckpointError", "check_suffix", "load_weights", "save_weights"]
