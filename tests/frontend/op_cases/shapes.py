"""Cases of `ops.shapes`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, Given, fixed, given, integers, sample

X = given(sample((2, 3, 4)), "float32")


def typed(shape: tuple[int, ...]) -> Iterator[Given]:
    """A tensor of each of the usual dtypes."""
    for dtype in ("float16", "float64", "int32", "int64", "bool", "uint8"):
        yield given(integers(shape), dtype)


def reading() -> Iterator[Case]:
    yield Case("shape", [X], lambda x: list(x.shape), dtype="int64")
    yield Case("shape", [fixed(sample((2, 0)), "float32")], lambda x: list(x.shape), dtype="int64")
    yield Case("ndim", [X], np.ndim, dtype="int64")
    yield Case("ndim", [fixed(1.0, "float32")], np.ndim, dtype="int64")
    yield Case("size", [X], np.size, dtype="int64")
    yield Case("size", [fixed(1.0, "float32")], np.size, dtype="int64")


def reshaping() -> Iterator[Case]:
    for shape in ((-1, 4), (-1,), (-1, 2, 2, 3), [-1, 1, 12]):
        yield Case("reshape", [X, shape], np.reshape, gradient=True, note=str(shape))
    yield Case("reshape", [fixed(sample((2, 6)), "float32"), (3, 4)], np.reshape)
    yield Case("reshape", [fixed(sample((2, 6)), "float32"), 12], np.reshape, note="number")
    yield Case("reshape", [fixed(np.zeros((0, 6)), "float32"), (2, 0, 3)], np.reshape)
    yield Case("reshape", [fixed(2.0, "float32"), (1, 1)], np.reshape)
    yield Case("reshape", [fixed([2.0], "float32"), ()], np.reshape)
    for x in typed((2, 6)):
        yield Case("reshape", [x, (-1, 3)], np.reshape)
    yield Case("ravel", [X], np.ravel, gradient=True)
    yield Case("ravel", [fixed(2.0, "float32")], np.ravel)
    flat = lambda x: x.reshape(len(x), int(np.prod(x.shape[1:])))  # noqa: E731
    for x in (X, given(sample((3,)), "float32"), fixed(np.zeros((2, 0, 3)), "float32")):
        yield Case("flatten", [x], flat, gradient=bool(x.array.size))
    yield Case("flatten", [fixed(np.zeros((0, 2, 3)), "float32")], flat)


def axes() -> Iterator[Case]:
    for order in (None, (0, 2, 1), (2, 0, 1), (-1, 0, -2), (0, 1, 2)):
        yield Case("transpose", [X, order], np.transpose, gradient=True, note=str(order))
    yield Case("transpose", [fixed(2.0, "float32")], np.transpose)
    for x in typed((2, 3)):
        yield Case("transpose", [x], np.transpose)
    for pair in ((0, 1), (-1, 0), (1, 1), (-2, -1)):
        yield Case("swapaxes", [X, *pair], np.swapaxes, gradient=True, note=str(pair))
    for source, target in ((0, -1), (-1, 0), ((0, 1), (1, 2)), ([2, 0], [0, 1]), (1, 1)):
        yield Case(
            "moveaxis", [X, source, target], np.moveaxis, gradient=True, note=f"{source}to{target}"
        )
    for axis in (0, 1, -1, 3, (0, 2), (-1, 0), [1, 3]):
        yield Case("expand_dims", [X, axis], np.expand_dims, gradient=True, note=str(axis))
    yield Case("expand_dims", [fixed(2.0, "float32"), 0], np.expand_dims)
    ones = given(sample((3, 1, 2, 1)), "float32")
    for axis in (1, -1, (1, 3), [-1, -3]):
        yield Case(
            "squeeze",
            [ones, axis],
            lambda x, axis: np.squeeze(x, tuple(np.ravel(axis))),
            gradient=True,
            note=str(axis),
        )
    yield Case("squeeze", [fixed(ones.array, "float32")], np.squeeze, gradient=True)
    yield Case("squeeze", [fixed([[2.0]], "float32")], np.squeeze)
    for axis in (None, 0, -1, (0, 2), [1]):
        yield Case(
            "flip",
            [X, axis],
            lambda x, axis: np.flip(x, axis if axis is None else tuple(np.ravel(axis))),
            gradient=True,
            note=str(axis),
        )
    yield Case("flip", [fixed(2.0, "float32")], np.flip)
    for x in typed((3, 2)):
        yield Case("flip", [x, 0], np.flip)


def joining() -> Iterator[Case]:
    x, y = given(sample((2, 3)), "float32"), given(sample((2, 3), seed=1), "float32")
    for axis in (0, 1, -1):
        yield Case("concatenate", [[x, y]], np.concatenate, {"axis": axis}, gradient=True)
    wide = given(sample((2, 1), seed=2), "float32")
    yield Case("concatenate", [(x, wide, x)], np.concatenate, {"axis": 1}, gradient=True)
    yield Case("concatenate", [[x]], np.concatenate, note="one")
    empty = fixed(np.zeros((0, 3)), "float32")
    yield Case("concatenate", [[empty, x]], np.concatenate)
    mixed = [given([1, 2], "int32"), given([1.5, 2.5], "float32")]
    yield Case("concatenate", [mixed], np.concatenate, dtype="float32")
    for axis in (0, 1, 2, -1, -3):
        yield Case("stack", [[x, y]], np.stack, {"axis": axis}, gradient=True)
    yield Case("stack", [[fixed(1.0, "float32"), fixed(2.0, "float32")]], np.stack)
    for z in typed((2, 2)):
        yield Case("stack", [[z, z]], np.stack)
        yield Case("concatenate", [[z, z]], np.concatenate)


def _unstack(x: Any, num: int | None = None, axis: int = 0) -> list[Any]:
    return list(np.moveaxis(x, axis, 0))


def splitting() -> Iterator[Case]:
    y = given(sample((2, 6)), "float32")
    for how in (2, 3, 1, [2, 3], [0, 4], (1, -1), [2, 9], [3]):
        yield Case("split", [y, how], np.split, {"axis": 1}, gradient=True, note=str(how))
    yield Case("split", [fixed(y.array, "float32"), 2], np.split)
    yield Case("split", [fixed(y.array, "float32"), 3, -1], np.split)
    for z in typed((2, 4)):
        yield Case("split", [z, 2, 1], np.split)
    yield Case("unstack", [X], _unstack, {"axis": 1}, gradient=True)
    yield Case("unstack", [X], _unstack, {"axis": -1, "num": 4})
    yield Case("unstack", [fixed(sample((3,)), "float32")], _unstack)


def repeating() -> Iterator[Case]:
    x = given(sample((2, 3)), "float32")
    for counts in (2, (2,), (2, 1), (1, 3), (2, 1, 2), [1, 1, 1, 2]):
        yield Case("tile", [x, counts], np.tile, gradient=True, note=str(counts))
    yield Case("tile", [fixed(2.0, "float32"), 3], np.tile)
    yield Case("tile", [x, (1, 0)], np.tile)
    for count, axis in ((2, None), (3, 0), (2, 1), (2, -1), (1, 0), (0, 1)):
        yield Case("repeat", [x, count], np.repeat, {"axis": axis}, gradient=count > 0)
    yield Case("repeat", [x, [2, 0, 1]], np.repeat, {"axis": 1}, gradient=True)
    yield Case("repeat", [fixed(2.0, "float32"), 3], np.repeat)
    for z in typed((2, 2)):
        yield Case("tile", [z, 2], np.tile)
        yield Case("repeat", [z, 2], np.repeat, {"axis": 0})
    for shape in ((2, 3), (4, 2, 3), (1, 2, 3)):
        yield Case(
            "broadcast_to",
            [fixed(x.array, "float32"), shape],
            np.broadcast_to,
            gradient=True,
            note=str(shape),
        )
    yield Case(
        "broadcast_to", [fixed([[1.0], [2.0]], "float32"), (2, 3)], np.broadcast_to, gradient=True
    )
    yield Case("broadcast_to", [fixed(2.0, "float32"), (0, 3)], np.broadcast_to)
    for z in typed((3,)):
        yield Case("broadcast_to", [fixed(z.array), (2, 3)], np.broadcast_to)


def padding() -> Iterator[Case]:
    def oracle(x: Any, width: Any, mode: str = "constant", constant_values: Any = None) -> Any:
        if mode != "constant":
            return np.pad(x, width, mode)
        return np.pad(x, width, constant_values=constant_values or 0)

    x = given(sample((3, 4)), "float32")
    for width in (1, (1, 2), ((0, 0), (2, 1)), ((1, 0), (0, 3)), 0):
        yield Case("pad", [x, width], oracle, gradient=True, note=str(width))
    for mode in ("reflect", "edge", "symmetric", "wrap"):
        yield Case("pad", [x, ((2, 1), (0, 3)), mode], oracle, gradient=True, note=mode)
    yield Case("pad", [x, 1], oracle, {"constant_values": 2.5}, gradient=True)
    for z in typed((2, 2)):
        yield Case("pad", [z, 1], oracle)
    yield Case("pad", [fixed(np.zeros((0, 2)), "float32"), 1], oracle)


CASES = [
    *reading(),
    *reshaping(),
    *axes(),
    *joining(),
    *splitting(),
    *repeating(),
    *padding(),
]
