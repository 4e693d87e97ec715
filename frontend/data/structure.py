"""Elements of a dataset: arrays, nested in tuples, named tuples and dicts.

A list is never a structure, it is data: `[[1, 2], [3, 4]]` is one 2x2 array, as in `tf.data`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxtape.tensor import Tensor, as_array

Structure: TypeAlias = Any
"""A leaf, or a tuple, named tuple or dict of structures."""


def map_structure(function: Callable[[Any], Any], tree: Structure) -> Structure:
    """Apply `function` to every leaf of `tree`; the result has the same nesting."""
    if isinstance(tree, tuple):
        return _like(tree, [map_structure(function, child) for child in tree])
    if isinstance(tree, dict):
        return {key: map_structure(function, child) for key, child in tree.items()}
    return function(tree)


def leaves_with_paths(tree: Structure, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf with where it sits, written as Python would reach it: `[0]['image']`."""
    if _kind(tree) is None:
        yield path, tree
    else:
        for step, child in _children(tree):
            yield from leaves_with_paths(child, path + step)


def to_arrays(tree: Structure, what: str) -> Structure:
    """Convert every leaf of `tree` to an array, except those that are `Tensor`s already.

    NumPy arrays keep their dtype. Python numbers, alone or in lists, become float32 and int32.

    Args:
        what: what `tree` is, to begin an error message with.

    Raises:
        TypeError: a leaf is None, or no rectangular array of numbers or booleans.
    """
    return map_structure(
        lambda leaf: leaf if isinstance(leaf, Tensor) else _to_array(leaf, what), tree
    )


def to_tensors(tree: Structure) -> Structure:
    """The same structure with `Tensor` leaves, which share the arrays' memory."""
    return map_structure(lambda leaf: leaf if isinstance(leaf, Tensor) else Tensor(leaf), tree)


def to_numpy(tree: Structure) -> Structure:
    """The same structure with NumPy leaves."""
    return map_structure(np.asarray, tree)


def stack(elements: Sequence[Structure], path: str = "") -> Structure:
    """Stack equal structures leaf by leaf along a new first axis.

    Raises:
        ValueError: two elements differ in nesting, or in the shape or dtype of a leaf.
    """
    first = elements[0]
    kind = _kind(first)
    for position, element in enumerate(elements):
        if _kind(element) != kind:
            raise ValueError(
                f"batch: element {position} of the batch is {_describe(element)}{_at(path)}, but "
                f"element 0 is {_describe(first)}; all elements of a batch need the same structure"
            )
    if kind is not None:
        columns = zip(*(_children(element, like=first) for element in elements), strict=True)
        stacked = [stack([child for _, child in column], path + column[0][0]) for column in columns]
        return dict(zip(first, stacked, strict=True)) if kind[0] is dict else _like(first, stacked)
    arrays = [np.asarray(element) for element in elements]
    for position, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"batch: element {position} of the batch has shape {array.shape}{_at(path)}, but "
                f"element 0 has shape {arrays[0].shape}; bring them to one shape before batch() "
                "(pad or crop in map()), or use batch(1)"
            )
        if array.dtype != arrays[0].dtype:
            raise ValueError(
                f"batch: element {position} of the batch has dtype {array.dtype}{_at(path)}, but "
                f"element 0 has dtype {arrays[0].dtype}; bring them to one dtype before batch()"
            )
    return np.stack(arrays)


def _to_array(value: Any, what: str) -> NDArray[Any]:
    try:
        return as_array(value)
    except TypeError as error:
        raise TypeError(
            f"{what}: {error}; give arrays, tensors, numbers or lists of numbers of one length, "
            "and nest these in tuples and dicts, not in lists"
        ) from error


def _like(tree: tuple[Any, ...], children: list[Any]) -> tuple[Any, ...]:
    return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)


def _kind(tree: Structure) -> tuple[Any, ...] | None:
    """What two containers must share to have the same children; None for a leaf."""
    if isinstance(tree, tuple):
        return type(tree), len(tree)
    if isinstance(tree, dict):
        return dict, frozenset(tree)
    return None


def _children(tree: Structure, like: Structure = None) -> Iterator[tuple[str, Any]]:
    """Each child with its step of the path; a dict's in the order of the keys of `like`."""
    if isinstance(tree, dict):
        for key in tree if like is None else like:
            yield f"[{key!r}]", tree[key]
    else:
        names = getattr(tree, "_fields", None)
        for position, child in enumerate(tree):
            yield (f".{names[position]}" if names else f"[{position}]"), child


def _describe(tree: Structure) -> str:
    if isinstance(tree, dict):
        return f"a dict with the keys {list(tree)}"
    if isinstance(tree, tuple):
        return f"a {type(tree).__name__} of {len(tree)}"
    return "an array"


def _at(path: str) -> str:
    return f" at {path}" if path else ""
