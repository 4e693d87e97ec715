"""Operators that move elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.compiler.cases.case import Case
from tests.compiler.graphs import spread

END = np.iinfo(np.int64).max
START = np.iinfo(np.int64).min


def ints(numbers: Sequence[int] | int | None) -> Any:
    return None if numbers is None else np.asarray(numbers, np.int64)


def _with_axes(op: str, shape: tuple[int, ...], axes: Sequence[int] | None) -> Case:
    inputs = [spread(shape)] if axes is None else [spread(shape), ints(axes)]
    return Case(op, inputs, note=f"axes={axes}".replace(" ", ""))


RESHAPES: list[tuple[tuple[int, ...], list[int], dict[str, int]]] = [
    ((2, 3, 4), [6, 4], {}),
    ((2, 3, 4), [4, -1], {}),
    ((2, 3, 4), [0, -1], {}),
    ((2, 3, 4), [-1], {}),
    ((1,), [], {}),
    ((), [1, 1], {}),
    ((0, 3), [0, 5], {"allowzero": 1}),
    ((2, 3), [2, 3], {"allowzero": 1}),
]

#: starts, ends, axes, steps of a (4, 5) tensor.
SLICES: list[tuple[list[int], list[int], list[int] | None, list[int] | None]] = [
    ([1], [3], [0], None),
    ([1], [3], None, None),
    ([0, 1], [4, 4], None, None),
    ([1, 2], [END, END], [0, 1], [1, 1]),
    ([0], [END], [1], None),
    ([2], [9], [1], None),
    ([7], [9], [1], None),
    ([-3], [-1], [1], None),
    ([-9], [-1], [1], None),
    ([-2], [END], [-1], None),
    ([0], [-1], [-2], None),
    ([3], [1], [0], None),
    ([0], [END], [1], [2]),
    ([1, 0], [4, 5], [0, 1], [2, 3]),
    ([-1], [START], [1], [-1]),
    ([3], [0], [0], [-1]),
    ([-1, 3], [START, 0], [1, 0], [-2, -1]),
    ([4, 0], [-9, 2], [1, 0], [-3, 1]),
]

#: pads, axes of a (3, 4) tensor.
PADS: list[tuple[list[int], list[int] | None]] = [
    ([1, 0, 0, 2], None),
    ([0, 0, 0, 0], None),
    ([-1, 0, 0, -2], None),
    ([1, -1, -1, 2], None),
    ([2, 1], [1]),
    ([2, 1], [-1]),
    ([0, 2, 1, -1], [1, 0]),
]


def _slice() -> list[Case]:
    cases = []
    for starts, ends, axes, steps in SLICES:
        inputs = [spread((4, 5)), ints(starts), ints(ends), ints(axes), ints(steps)]
        while inputs[-1] is None:
            inputs.pop()
        named = {END: "end", START: "start"}
        note = f"{starts}:{[named.get(e, e) for e in ends]}:{steps}@{axes}".replace(" ", "")
        cases.append(Case("Slice", inputs, note=note))
    return cases


def _pad() -> list[Case]:
    cases = []
    for pads, axes in PADS:
        note = f"{pads}@{axes}".replace(" ", "")
        for fill in (None, spread(())):
            inputs = [spread((3, 4)), ints(pads), fill, ints(axes)]
            while inputs[-1] is None:
                inputs.pop()
            cases.append(Case("Pad", inputs, note=note))
    for mode in ("reflect", "edge", "wrap"):
        for pads, axes in [([1, 0, 0, 2], None), ([2, 1], [1]), ([1, 2, 1, 3], [0, 1])]:
            inputs = [spread((3, 4)), ints(pads), None, ints(axes)]
            while inputs[-1] is None:
                inputs.pop()
            cases.append(Case("Pad", inputs, {"mode": mode}, note=f"{pads}@{axes}"))
    return cases


def _split() -> list[Case]:
    def case(shape: tuple[int, ...], axis: int | None, count: int, sizes: Any = None) -> Case:
        attributes = {} if axis is None else {"axis": axis}
        if sizes is None:
            attributes["num_outputs"] = count
        inputs = [spread(shape)] if sizes is None else [spread(shape), ints(sizes)]
        return Case("Split", inputs, attributes, outputs=count, note=f"sizes={sizes}")

    return [
        case((4, 6), None, 2),
        case((4, 6), 1, 3),
        case((4, 6), -1, 2),
        case((4, 7), 1, 3),
        case((4, 6), 1, 1),
        case((4, 6), 1, 3, [1, 2, 3]),
        case((4, 6), 0, 2, [3, 1]),
        case((4, 6), -1, 3, [4, 0, 2]),
    ]


def _concat() -> list[Case]:
    groups: list[tuple[int, list[tuple[int, ...]]]] = [
        (0, [(2, 3), (1, 3)]),
        (1, [(2, 3), (2, 1), (2, 2)]),
        (-1, [(2, 3), (2, 4)]),
        (-2, [(2, 3), (2, 3)]),
        (0, [(3,)]),
        (1, [(2, 0), (2, 3)]),
    ]
    return [
        Case("Concat", [spread(s, seed=i) for i, s in enumerate(shapes)], {"axis": axis})
        for axis, shapes in groups
    ]


CASES: list[Case] = [
    *[Case("Reshape", [spread(x), ints(to)], a, note=f"to={to}") for x, to, a in RESHAPES],
    *[Case("Flatten", [spread((2, 3, 4))], {"axis": axis}) for axis in (0, 1, 2, 3, -1)],
    Case("Flatten", [spread((2, 3, 4))]),
    Case("Flatten", [spread(())], {"axis": 0}),
    _with_axes("Squeeze", (1, 3, 1), None),
    _with_axes("Squeeze", (1, 3, 1), [0]),
    _with_axes("Squeeze", (1, 3, 1), [-1]),
    _with_axes("Squeeze", (1, 3, 1), [2, 0]),
    _with_axes("Squeeze", (1, 1), None),
    _with_axes("Unsqueeze", (2, 3), [0]),
    _with_axes("Unsqueeze", (2, 3), [-1]),
    _with_axes("Unsqueeze", (2, 3), [3, 1]),
    _with_axes("Unsqueeze", (), [0]),
    Case("Transpose", [spread((2, 3, 4))]),
    *[
        Case("Transpose", [spread((2, 3, 4))], {"perm": perm})
        for perm in ([0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1])
    ],
    Case("Transpose", [spread(())]),
    *[
        Case("Expand", [spread(x), ints(to)], note=f"to={to}")
        for x, to in [
            ((3, 1), [3, 4]),
            ((3, 1), [2, 1, 4]),
            ((3,), [2, 3]),
            ((3, 4), [1, 1]),
            ((3, 1), [4]),
            ((), [2, 2]),
            ((1,), []),
        ]
    ],
    *_concat(),
    *_split(),
    *_slice(),
    *_pad(),
    *[
        Case("Tile", [spread(x), ints(r)], note=f"by={r}")
        for x, r in [((2, 3), [2, 2]), ((2, 3), [1, 3]), ((3,), [2]), ((2, 1, 2), [1, 2, 3])]
    ],
    Case("Tile", [spread(()), ints([])], note="scalar"),
    Case("Tile", [spread((2, 3)), ints([0, 2])], note="no copies"),
    *[
        Case("Trilu", [spread((2, 3, 4)), *k], {"upper": upper}, note=f"k={k}")
        for k in ([], [ints(1)], [ints(-2)])
        for upper in (0, 1)
    ],
    Case("Trilu", [spread((3, 3))]),
    *[
        Case(
            "ReverseSequence",
            [spread(shape), ints(lengths)],
            {"batch_axis": batch_axis, "time_axis": 1 - batch_axis},
        )
        for shape, lengths, batch_axis in [((4, 3), [1, 4, 2], 1), ((2, 4, 2), [3, 4], 0)]
    ],
    Case("ReverseSequence", [spread((3, 2)), ints([2, 3])], note="default axes"),
]
