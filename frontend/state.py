"""Checkpoints: the variables of models, optimizers and metrics, and the positions of datasets, in
one safetensors file."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxtape import random
from onnxtape.data.dataset import Dataset
from onnxtape.data.position import Position
from onnxtape.errors import CheckpointError
from onnxtape.layers.layer import Layer
from onnxtape.naming import distinct
from onnxtape.ordered_state import load_ordered, save_ordered, uncounted
from onnxtape.runtime.checkpoint import check_state
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
        OSError: the file cannot be written, e.g. because its folder does not exist.
    """
    write_variables(path, tree, [_generator()])


def _generator() -> tuple[str, Variable]:
    return _GENERATOR, random.global_generator().state


def write_variables(
    path: str | os.PathLike[str], tree: Any, others: Sequence[tuple[str, Variable]] = ()
) -> None:
    """Write the variables in `tree`, and others under names of their own."""
    save_ordered(path, {name: v.numpy() for name, v in _variables(tree, others).items()})


def restore_checkpoint(path: str | os.PathLike[str], tree: Any) -> None:
    """Assign the values that `save_checkpoint` wrote to the variables in `tree`.

    Models and optimizers must be built, as they were when they were saved. Where names differ only
    by the numbers that objects without a name of their own get (`dense_3`, `adam_1`), as those of
    a model that is made a second time do, variables are found by their order.

    Raises:
        CheckpointError: the file is damaged, or belongs to other variables; nothing is assigned.
    """
    read_variables(path, tree, [_generator()], os.fspath(path))


def read_variables(
    path: str | os.PathLike[str],
    tree: Any,
    others: Sequence[tuple[str, Variable]],
    source: str,
    part: str = "",
    by_order: bool = False,
) -> None:
    """Assign what `write_variables` wrote; see `restore_checkpoint`.

    Args:
        source: what the file is, for messages.
        part: what the names of the entries begin with that are read; the others are left alone.
        by_order: whether entries of other names, as many as there are variables, are those in their
            order: the names of layers that were built elsewhere do not tell where they are now.
    """
    variables = _variables(tree, others)
    found, is_ordered = load_ordered(path)
    found = {name: array for name, array in found.items() if name.startswith(part)}
    renamed = None if found.keys() == variables.keys() else _renamed(found, variables, tree)
    if renamed is not None and is_ordered:
        found = {name: found[renamed[name]] for name in variables}
    elif by_order and is_ordered and len(found) == len(variables) and set(found) != set(variables):
        found = dict(zip(variables, found.values(), strict=True))
    try:
        check_state(
            {name: (v.dtype.name, v.shape) for name, v in variables.items()},
            {name: (array.dtype.name, array.shape) for name, array in found.items()},
            source=source,
        )
    except CheckpointError as error:
        unbuilt = [f"'{part.name}'" for part in _parts(tree) if not getattr(part, "built", True)]
        if renamed is not None and not is_ordered:
            raise CheckpointError(
                f"{error}\n  The names differ only by the numbers that objects without a name get "
                "in the order they are made, and the file does not say its order: give them a "
                "name=..., or make them first in a new process"
            ) from None
        if not unbuilt:
            raise
        raise CheckpointError(
            f"{error}\n  {', '.join(unbuilt)} is not built yet: call a model on data once, and "
            "optimizer.build(model.trainable_variables), before restoring"
        ) from None
    for name, variable in variables.items():
        value: npt.NDArray[Any] = np.asarray(found[name])
        variable.assign(value)


def _renamed(
    found: Collection[str], variables: Collection[str], tree: Any
) -> dict[str, str] | None:
    """For each variable the entry that it is, where their names differ only by counts.

    The keys of dicts are no counted names. Of those with equal names, the first is the first.
    """
    keys = sorted({prefix for prefix, _ in _walk(tree, "")}, key=len, reverse=True)

    def plain(name: str) -> str:
        key = next((key for key in keys if name.startswith(key)), "")
        return key + uncounted(name.removeprefix(key))

    left: dict[str, deque[str]] = defaultdict(deque)
    for name in found:
        left[plain(name)].append(name)
    renamed = {name: left[plain(name)].popleft() for name in variables if left[plain(name)]}
    return None if any(left.values()) or len(renamed) != len(variables) else renamed


def _parts(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [part for value in tree.values() for part in _parts(value)]
    if isinstance(tree, (list, tuple)):
        return [part for value in tree for part in _parts(value)]
    return [tree]


def _variables(tree: Any, others: Sequence[tuple[str, Variable]]) -> dict[str, _Saved]:
    walked = [(prefix, variable.path, variable) for prefix, variable in _walk(tree, "")]
    named: dict[str, _Saved] = {}
    seen: set[int] = set()
    for prefix, path, variable in [*walked, *(("", name, v) for name, v in others)]:
        if id(variable) not in seen:
            seen.add(id(variable))
            named[_unused(prefix, path, named)] = variable
    return named


def _unused(prefix: str, path: str, names: Collection[str]) -> str:
    return prefix + distinct(path, lambda other: prefix + other in names)


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
        # Of a layer the metrics that it holds, too; `compile` makes those of its own anew.
        metrics = tree._held_metrics() if isinstance(tree, Layer) else []
        held = [variable for metric in metrics for variable in metric.variables]
        return [(prefix, variable) for variable in (*variables, *held)]
    state = getattr(tree, "state", None)
    if isinstance(state, Variable):
        return [(prefix, state)]
    raise TypeError(
        "a checkpoint holds models, layers, optimizers, metrics, variables and datasets, "
        f"not {type(tree).__name__}"
    )
