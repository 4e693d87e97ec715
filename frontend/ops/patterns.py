"""Axes rearranged by a pattern in words."""

from __future__ import annotations

import re
from typing import Any

from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.axes import refused
from onnxtape.ops.shapes import reshape, shape, transpose
from onnxtape.tensor import Tensor

__all__ = ["rearrange"]

_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z_]\w*|1)")


def rearrange(tensor: Any, pattern: str, **axes_lengths: int) -> Tensor:
    """Axes split, moved and joined as a pattern says, in the notation of einops.

    Args:
        pattern: "b (h w) c -> b c h w": names of axes before and after, each once on either side;
            in parentheses those that share one axis.
        axes_lengths: the sizes of axes that share one, but for one of them.

    Raises:
        ValueError: a pattern that cannot be read, or whose sides name different axes.
        ShapeError: a tensor that the pattern does not fit.
    """
    t = convert_to_tensor(tensor)
    sides = pattern.split("->")
    if len(sides) != 2:
        raise ValueError(f"rearrange: the pattern {pattern!r} has not the form 'axes -> axes'")
    before, after = (_groups(side, pattern) for side in sides)
    names, wanted = ([n for group in side for n in group] for side in (before, after))
    if sorted(names) != sorted(wanted) or len(set(names)) < len(names):
        raise ValueError(
            f"rearrange: the pattern {pattern!r} must name the same axes, each once, on both sides"
        )
    if unknown := sorted(set(axes_lengths) - set(names)):
        raise ValueError(f"rearrange: the pattern {pattern!r} names no axis {unknown[0]!r}")
    dims = shape(t)
    if len(before) != len(dims):
        raise refused(f"rearrange: {pattern!r} does not fit a tensor of {format_shape(B.shape(t))}")
    sizes: dict[str, Any] = {}
    for group, dim in zip(before, dims, strict=True):
        sizes.update(_sizes(group, dim, axes_lengths, pattern))
    split = reshape(t, [sizes[n] for n in names])
    moved = transpose(split, [names.index(n) for n in wanted])
    return reshape(moved, [_product([sizes[n] for n in group]) for group in after])


def _groups(side: str, pattern: str) -> list[list[str]]:
    """The axes of one side: for each the names that share it (none for an axis of size 1)."""
    groups: list[list[str]] = []
    inside, place = False, 0
    text = side.rstrip()
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None or (token[1] == "(" and inside) or (token[1] == ")" and not inside):
            raise ValueError(
                f"rearrange: the pattern {pattern!r} cannot be read at {text[place:]!r}"
            )
        place = token.end()
        if token[1] in "()":
            inside = token[1] == "("
            if inside:
                groups.append([])
        elif inside:
            groups[-1] += [token[1]] if token[1] != "1" else []
        else:
            groups.append([token[1]] if token[1] != "1" else [])
    if inside:
        raise ValueError(f"rearrange: a parenthesis in {pattern!r} is not closed")
    return groups


def _sizes(group: list[str], dim: Any, given: dict[str, int], pattern: str) -> dict[str, Any]:
    """The sizes of the axes that share one of size `dim`, of which one may not be given."""
    known = {name: given[name] for name in group if name in given}
    open_ = [name for name in group if name not in given]
    count = int(_product(list(known.values())))
    if len(open_) > 1:
        raise ValueError(f"rearrange: give the sizes of {', '.join(open_[1:])} in {pattern!r}")
    if isinstance(dim, int) and (dim % max(count, 1) if open_ else dim != count):
        raise refused(f"rearrange: an axis of size {dim} has no parts {known} as in {pattern!r}")
    return {**known, **dict.fromkeys(open_, dim // count)}


def _product(sizes: list[Any]) -> Any:
    total: Any = 1
    for size in sizes:
        total = size * total
    return total
