"""Checkpoints: the variables of models, optimizers and metrics, and the positions of datasets, in
one safetensors file."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxtape import random
from onnxtape.data.dataset import Dataset
from onnxtape.data.position import Position
from onnxtape.errors import CheckpointError
from onnxtape.runtime.checkpoint import check_state, load_state, save_state
from onnxtape.variable import Variable

_GENERATOR = "global_seed_generator"

#: What a checkpoint has an entry of.
_Saved: TypeAlias = Variable | Position


def save_checkpoint(path: str | os.PathLike[str], tree: Any) -> None:
    """Write every variable in `tree`, and the global random stream, to a safetensors file.

    The file is written beside `path` and renamed: a crash leaves the old or the new one whole.

    Args:
        tree: models, layers, optimizers, metrics, variables, and datasets, in nested dicts, lists
            and tuples. Of a dataset (the one that is looped over) its position is kept, see
            `ot.data.Dataset`.

    Raises:
        TypeError: something else in `tree`.
    """
    save_state(path, {name: v.numpy() for name, v in _variables(tree).items()})


def restore_checkpoint(path: str | os.PathLike[str], tree: Any) -> None:
    """Assign the values that `save_checkpoint` wrote to the variables in `tree`.

    Models and optimizers must be built, as they were when they were saved.

    Raises:
        CheckpointError: the file is damaged, or belongs to other variables; nothing is assigned.
    """
    variables = _variables(tree)
    found = load_state(path)
    try:
        check_state(
            {name: (v.dtype.name, v.shape) for name, v in variables.items()},
            {name: (array.dtype.name, array.shape) for name, array in found.items()},
            source=os.fspath(path),
        )
    except CheckpointError as error:
        unbuilt = [f"'{part.name}'" for part in _parts(tree) if not getattr(part, "built", True)]
        if not unbuilt:
            raise
        raise CheckpointError(
            f"{error}\n  {', '.join(unbuilt)} is not built yet: call a model on data once, and "
            "optimizer.build(model.trainable_variables), before restoring"
        ) from None
    for name, variable in variables.items():
        value: npt.NDArray[Any] = np.asarray(found[name])
        variable.assign(value)


def _parts(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [part for value in tree.values() for part in _parts(value)]
    if isinstance(tree, (list, tuple)):
        return [part for value in tree for part in _parts(value)]
    return [tree]


def _variables(tree: Any) -> dict[str, _Saved]:
    found: dict[int, tuple[str, _Saved]] = {}
    for prefix, variable in _walk(tree, ""):
        found.setdefault(id(variable), (f"{prefix}{variable.path}", variable))
    generator = random.global_generator().state
    found.setdefault(id(generator), (_GENERATOR, generator))
    named: dict[str, _Saved] = {}
    for name, variable in found.values():
        unique, count = name, 0
        while unique in named:
            count += 1
            unique = f"{name}_{count}"
        named[unique] = variable
    return named


def _walk(tree: Any, prefix: str) -> list[tuple[str, _Saved]]:
    if isinstance(tree, Variable):
        return [(prefix, tree)]
    if isinstance(tree, dict):
        return [pair for key in tree for pair in _walk(tree[key], f"{prefix}{key}/")]
    if isinstance(tree, (list, tuple)):
        return [pair for part in tree for pair in _walk(part, prefix)]
    if isinstance(tree, Dataset):
        return [(prefix, tree.position)]
    variables = getattr(tree, "variables", None)
    if isinstance(variables, list):
        return [(prefix, variable) for variable in variables]
    state = getattr(tree, "state", None)
    if isinstance(state, Variable):
        return [(prefix, state)]
    raise TypeError(
        "a checkpoint holds models, layers, optimizers, metrics, variables and datasets, "
        f"not {type(tree).__name__}"
    )
