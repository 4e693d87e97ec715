"""Nested structures of tensors that have to be alike: what branches return, what loops carry."""

from __future__ import annotations

from typing import Any

from onnxtape import context, nest
from onnxtape.compiler.dims import format_shape
from onnxtape.compiler.errors import located
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import DtypeError
from onnxtape.ops.axes import may_equal, refused
from onnxtape.tensor import Tensor


def as_tensors(tree: Any) -> Any:
    """The structure with its leaves as tensors; None stays."""
    return nest.map_structure(lambda x: None if x is None else convert_to_tensor(x), tree)


def check_alike(what: str, first: Any, second: Any, names: tuple[str, str] | None = None) -> Any:
    """`second` as tensors, which must have `first`'s structure, dtypes and shapes.

    Args:
        what: the two are, for the message.
        first: its leaves are tensors or None.
        names: where the two come from. Without them the second came after the first, and a Python
            number in it takes the dtype of its counterpart.

    Raises:
        ValueError, DtypeError, ShapeError: where they differ, with the leaf's path.
    """
    before, after = names or ("given", "returned")
    adapt = names is None
    difference = _difference(first, second, "")
    if difference is not None:
        path, one, other = difference
        raise ValueError(
            _located(
                f"{what} differ in structure{_at(path)}: {before} {one}, {after} {other}; return "
                "the same dicts, lists and tuples"
            )
        )
    leaves = [
        _alike(what, path, one, _number(other, one) if adapt else other, before, after)
        for (path, one), other in zip(
            nest.flatten_with_paths(first), nest.flatten(second), strict=True
        )
    ]
    return nest.pack_like(second, leaves)


def _number(x: Any, like: Tensor | None) -> Any:
    """A Python number in the dtype of its counterpart; anything else as it is."""
    if like is None or not isinstance(x, (bool, int, float)):
        return x
    return convert_to_tensor(x, like.dtype)


def _alike(what: str, path: str, one: Any, other: Any, before: str, after: str) -> Tensor | None:
    if one is None:
        return None
    tensor = convert_to_tensor(other)
    if tensor.dtype != one.dtype:
        raise DtypeError(
            _located(
                f"{what} differ in dtype{_at(path)}: {before} {one.dtype}, {after} "
                f"{tensor.dtype}; convert one with ops.cast"
            )
        )
    if not may_equal(B.shape(one), B.shape(tensor)):
        raise refused(
            f"{what} differ in shape{_at(path)}: {before} {format_shape(B.shape(one))}, "
            f"{after} {format_shape(B.shape(tensor))}"
        )
    return tensor


def _difference(first: Any, second: Any, path: str) -> tuple[str, str, str] | None:
    """The first place at which two structures differ, with what is there in either."""
    one, other = _kind(first), _kind(second)
    if one != other:
        return path, one, other
    if nest.is_leaf(first):
        return None
    for (name, left), (_, right) in zip(nest.children(first), nest.children(second), strict=True):
        found = _difference(left, right, f"{path}.{name}" if path else name)
        if found is not None:
            return found
    return None


def _kind(tree: Any) -> str:
    if tree is None:
        return "None"
    if nest.is_leaf(tree):
        return "a tensor"
    names = [name for name, _ in nest.children(tree)]
    if isinstance(tree, dict):
        return f"a dict with the keys {', '.join(names) or '(none)'}"
    return f"a {type(tree).__name__} of {len(names)}"


def _at(path: str) -> str:
    return f" at '{path}'" if path else ""


def _located(message: str) -> str:
    return located(message, context.provenance())
