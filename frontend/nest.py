"""Nested structures: dicts, lists and tuples of leaves. None is a leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


def _children(tree: Any) -> list[tuple[str, Any]] | None:
    """The parts with their names, or None for a leaf."""
    if isinstance(tree, Mapping):
        return [(str(key), tree[key]) for key in tree]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return list(zip(tree._fields, tree, strict=True))
    if isinstance(tree, (list, tuple)):
        return [(str(i), part) for i, part in enumerate(tree)]
    return None


def is_leaf(tree: Any) -> bool:
    """Whether the tree is neither dict, list nor tuple."""
    return _children(tree) is None


def children(tree: Any) -> list[tuple[str, Any]]:
    """The parts of a tree that is no leaf, with their names."""
    return _children(tree) or []


def flatten(tree: Any) -> list[Any]:
    """The leaves from left to right."""
    parts = _children(tree)
    if parts is None:
        return [tree]
    return [leaf for _, part in parts for leaf in flatten(part)]


def flatten_sorted(tree: Any) -> list[Any]:
    """The leaves from left to right, those of dicts in the order of their names."""
    parts = _children(tree)
    if parts is None:
        return [tree]
    if isinstance(tree, Mapping):
        parts = sorted(parts, key=lambda part: part[0])
    return [leaf for _, part in parts for leaf in flatten_sorted(part)]


def flatten_with_paths(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves with their paths: `{"x": [a, b]}` gives `x.0` and `x.1`."""
    parts = _children(tree)
    if parts is None:
        return [(prefix, tree)]
    return [
        leaf
        for name, part in parts
        for leaf in flatten_with_paths(part, f"{prefix}.{name}" if prefix else name)
    ]


def structure(tree: Any) -> Any:
    """A hashable description of everything but the leaves."""
    parts = _children(tree)
    if parts is None:
        return None
    return (type(tree), tuple((name, structure(part)) for name, part in parts))


def pack_like(tree: Any, leaves: Sequence[Any]) -> Any:
    """`tree` with its leaves replaced, in order."""
    return _pack(tree, iter(leaves))


def _pack(tree: Any, leaves: Iterator[Any]) -> Any:
    if isinstance(tree, Mapping):
        return {key: _pack(tree[key], leaves) for key in tree}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[_pack(part, leaves) for part in tree])
    if isinstance(tree, (list, tuple)):
        return type(tree)([_pack(part, leaves) for part in tree])
    return next(leaves)


def map_structure(function: Callable[..., Any], tree: Any) -> Any:
    """`tree` with `function` applied to every leaf."""
    return pack_like(tree, [function(leaf) for leaf in flatten(tree)])
