"""Gradients of the recurrent operators: RNN, GRU, LSTM.

The operators do not give their gates, so the forward pass is computed again, with them; in a
compiled step it then stands in for the operator, whose kernel it matches in speed (`supersede`).
Only the recurrence itself runs step by step: the products with the input, and the gradients of all
weights, are one matrix product each over all steps.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.gradients.recurrent_activations import activations
from onnxtape.compiler.gradients.recurrent_cells import GRU, LSTM, RNN, Cell, add
from onnxtape.compiler.gradients.recurrent_inputs import Gathered, Given, Inputs
from onnxtape.compiler.gradients.recurrent_steps import (
    Series,
    dims_vector,
    run_steps,
    size,
)
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient

B = Builder[Any]
N = Record[Any]

_DEFAULTS = {
    "RNN": ["Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
}


@gradient("RNN", "GRU", "LSTM")
def recurrent(b: B, n: N, *grads: Any) -> list[Any]:
    """By X, W, R, B, the initial states and P; with sequence lengths, clipping and all directions.

    On a bound of `clip` and at the kinks of activation functions, what those operators' rules say.
    """
    x = n.required(0)
    b.known_rank(x, f"{n.op_type}'s gradient")
    if n.attribute("layout", 0):
        x = b.op("Transpose", x, perm=[1, 0, 2])
    return _Node(b, n, Given(b, x, size(b, n.required(1), 2))).gradients(grads)


def recurrent_of_rows(places: Any, swapped: bool, b: B, n: N, *grads: Any) -> list[Any]:
    """The same where the first input is a table (n, features), of which rows are read.

    Args:
        places: numbers of rows, (length, batch), or (batch, length) if `swapped`.
    """
    if swapped:
        places = b.op("Transpose", places, perm=[1, 0])
    return _Node(b, n, Gathered(b, n.required(0), places, b.dim(n.required(1), 1))).gradients(grads)


class _Node:
    """A recurrent operator, written out."""

    def __init__(self, b: B, n: N, inputs: Inputs) -> None:
        self.b, self.n, self.inputs, self.dims = b, n, inputs, inputs.dims
        self.hidden = self._hidden()
        self.batch_first = bool(n.attribute("layout", 0))
        direction = n.attribute("direction", "forward")
        both = direction == "bidirectional"
        self.reversed = [False, True] if both else [direction == "reverse"]
        self.count = len(self.reversed)
        self.cells = self._cells()
        self.dtype = b.dtype(n.required(0))

    # What the node says ---------------------------------------------------------------------------

    def _hidden(self) -> int:
        hidden = self.n.attribute("hidden_size") or self.b.dim(self.n.required(2), 2)
        if not isinstance(hidden, int):
            raise Refusal("nothing tells its hidden size; give the attribute hidden_size")
        return hidden

    def _cells(self) -> list[Cell]:
        n, op_type = self.n, self.n.op_type
        names = n.attribute("activations") or _DEFAULTS[op_type] * self.count
        alphas, betas = n.attribute("activation_alpha", []), n.attribute("activation_beta", [])
        functions = activations(names, alphas, betas, n.attribute("clip"))
        each = len(_DEFAULTS[op_type])
        if len(functions) != each * self.count:
            raise Refusal(
                f"it has {len(functions)} activation functions; {self.count} direction(s) need "
                f"{each * self.count}"
            )
        cells: list[Cell] = []
        for d in range(self.count):
            own = functions[each * d : each * (d + 1)]
            if op_type == "RNN":
                cells.append(RNN(self.hidden, own))
            elif op_type == "GRU":
                cells.append(GRU(self.hidden, own, bool(n.attribute("linear_before_reset", 0))))
            else:
                coupled, peepholes = n.attribute("input_forget", 0), n.input(7) is not None
                # ONNX Runtime clips what enters the gates, but not what enters the last function.
                own[2] = dataclasses.replace(own[2], clip=None)
                cells.append(LSTM(self.hidden, own, bool(coupled), peepholes))
        return cells

    # Shapes ---------------------------------------------------------------------------------------

    def _shape(self, *sizes: Any) -> Any:
        return dims_vector(self.b, *sizes)

    def _directions(self, index: int, rows: int) -> list[Any]:
        """An input (directions, rows * H, ...), cut up; Nones where it is omitted."""
        x = self.n.input(index)
        return [None] * self.count if x is None else self._cut(x, rows * self.hidden)

    def _cut(self, x: Any, rows: int) -> list[Any]:
        """`x` along its first axis, the direction; each part has as many rows."""
        b = self.b
        parts = [b.op("Squeeze", half, [0]) for half in _halves(b, x, self.count)]
        return [b.refine_shape(part, (rows, *(b.shape(part) or ())[1:])) for part in parts]

    def _joined(self, parts: Sequence[Any], axis: int = 0) -> Any:
        """One value for each direction as one, with an axis for the direction."""
        wide = [self.b.op("Unsqueeze", part, [axis]) for part in parts]
        return wide[0] if len(wide) == 1 else self.b.op("Concat", *wide, axis=axis)

    def _columns(self, x: Any) -> list[Any]:
        """Initial or final states by direction, each (H, batch)."""
        if x is None:
            return [None] * self.count
        turned = self.b.op("Transpose", x, perm=[1, 2, 0] if self.batch_first else [0, 2, 1])
        return self._cut(turned, self.hidden)

    def _states(self, columns: Sequence[Any]) -> Any:
        """The reverse of `_columns`."""
        rows = [self.b.op("Transpose", x, perm=[1, 0]) for x in columns]
        return self._joined(rows, 1 if self.batch_first else 0)

    # Forward --------------------------------------------------------------------------------------

    def _masks(self) -> tuple[Series | None, Series | None]:
        """1 where a step belongs to its sequence, and where it does not."""
        b, lengths = self.b, self.n.input(4)
        if lengths is None:
            return None, None
        last = self.dims.length
        last = b.constant(np.asarray(last)) if isinstance(last, int) else b.op("Squeeze", last)
        zero, one = (b.constant(np.asarray(i, np.int64)) for i in (0, 1))
        times = b.op("Reshape", b.op("Range", zero, last, one), [-1, 1, 1])
        bounds = b.op("Unsqueeze", b.cast(lengths, np.dtype(np.int64)), [0])
        inside = b.cast(b.op("Less", times, bounds), self.dtype)
        inside = b.op("Reshape", inside, self._shape(self.dims.length, 1, self.dims.batch))
        outside = b.op("Sub", 1.0, inside)
        return Series(1, self.dims, stacked=inside), Series(1, self.dims, stacked=outside)

    def _run(self) -> None:
        """The forward pass: what all steps make, by direction."""
        b, n = self.b, self.n
        self.inside, self.outside = self._masks()
        gates = self.cells[0].gates
        self.weights, self.recurrent = self._directions(1, gates), self._directions(2, gates)
        initial = [self._columns(n.input(5))]
        if n.op_type == "LSTM":
            initial.append(self._columns(n.input(6)))
        biases, peepholes = self._directions(3, 2 * gates), self._directions(7, 3)
        self.shared, self.last, self.made = [], [], []
        for d, cell in enumerate(self.cells):
            rows = cell.gates * self.hidden
            bias, recurrent_bias = None, None
            if biases[d] is not None:
                own, recurrent_bias = b.op_multi(
                    "Split", biases[d], [rows, rows], outputs=2, axis=0
                )
                bias = cell.input_bias(b, own, recurrent_bias)
            zx = self.inputs.products(b, rows, self.weights[d], bias)
            shared = cell.shared(b, self.recurrent[d], recurrent_bias, peepholes[d])
            zeros = b.op(
                "ConstantOfShape",
                self._shape(self.hidden, self.dims.batch),
                value=np.zeros(1, self.dtype),
            )
            first = [zeros if x[d] is None else x[d] for x in initial]
            last, made = run_steps(
                b,
                functools.partial(_forward, cell),
                shared,
                [(self.hidden, x) for x in first],
                [zx, self.inside, self.outside],
                self.dims,
                rows=self.hidden,
                reverse=self.reversed[d],
            )
            self.shared.append(shared)
            self.last.append(last)
            self.made.append(made)
        for i, output in enumerate(n.outputs):
            b.supersede(output, functools.partial(self._output, i))

    def _output(self, index: int) -> Any:
        """Y, Y_h or Y_c."""
        if index > 0:
            return self._states([last[index - 1] for last in self.last])
        # (length, directions, H, batch): within a step, a Transpose moves little.
        y = self._joined([made[0].stacked(self.b) for made in self.made], 1)
        return self.b.op("Transpose", y, perm=[3, 0, 1, 2] if self.batch_first else [0, 1, 3, 2])

    # Backward -------------------------------------------------------------------------------------

    def gradients(self, grads: Sequence[Any]) -> list[Any]:
        """One gradient per input, each made when it is wanted."""
        self._run()
        b = self.b
        by_y = self._by_outputs(grads[0])
        by_last = [self._columns(g) for g in (*grads[1:3], *[None] * (3 - len(grads)))]
        self.pre: list[list[Series]] = []
        self.first: list[list[Any]] = []
        for d, cell in enumerate(self.cells):
            states = [(self.hidden, by_last[0][d]), (cell.recurrent_rows, None)]
            if cell.states == 2:
                states.append((self.hidden, by_last[1][d]))
            (rest, pre, *others), series = run_steps(
                b,
                functools.partial(_backward, cell, self.inside is not None),
                self.shared[d],
                states,
                [by_y[d], self.inside, self.outside, *self.made[d][2:]],
                self.dims,
                rows=cell.gates * self.hidden,
                reverse=not self.reversed[d],
            )
            self.pre.append(series)
            self.first.append([b.op("Gemm", self.shared[d][0], pre, rest), *others])
        return [
            self._dx,
            lambda: self._joined([self._dw(d) for d in range(self.count)]),
            lambda: self._joined([self._dr(d) for d in range(self.count)]),
            lambda: self._joined([self._db(d) for d in range(self.count)]),
            None,
            lambda: self._states([first[0] for first in self.first]),
            lambda: self._states([first[1] for first in self.first]),
            lambda: self._joined([self._dp(d) for d in range(self.count)]),
        ]

    def _by_outputs(self, grad: Any) -> list[Series | None]:
        """The gradient of Y as matrices (H, batch) of each direction and step."""
        b = self.b
        if grad is None:
            return [None] * self.count
        turned = b.op("Transpose", grad, perm=[2, 1, 3, 0] if self.batch_first else [1, 0, 3, 2])
        parts = [b.op("Squeeze", part, [0]) for part in _halves(b, turned, self.count)]
        return [Series(self.hidden, self.dims, stacked=part) for part in parts]

    def _pre(self, d: int, which: int) -> list[Any]:
        """Gradients of pre-activations in blocks."""
        series = self.pre[d]
        return self._blocks(series[which if which < len(series) else 0])

    def _blocks(self, series: Series) -> list[Any]:
        return self.inputs.blocks(self.b, series)

    def _cut_features(self, blocks: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
        """Each block along its axis of features; by size, the blocks."""
        cut: list[Any] = [list(sizes)] if len(set(sizes)) > 1 else []
        count = len(sizes)
        options: dict[str, int] = {} if cut else {"num_outputs": count}
        axis = self.inputs.features
        parts = [
            self.b.op_multi("Split", x, *cut, outputs=count, axis=axis, **options) for x in blocks
        ]
        return [list(part) for part in zip(*parts, strict=True)]

    def _dx(self) -> Any:
        b = self.b
        dx = self.inputs.gradient(b, [self._pre(d, 0) for d in range(self.count)], self.weights)
        return b.op("Transpose", dx, perm=[1, 0, 2]) if self.batch_first else dx

    def _dw(self, d: int) -> Any:
        return self.inputs.weight_gradient(self.b, self._pre(d, 0))

    def _dr(self, d: int) -> Any:
        b, cell, outer = self.b, self.cells[d], self.inputs.outer
        before = self._blocks(self.made[d][1])
        if not isinstance(cell, GRU) or cell.linear_before_reset:
            return outer(b, self._pre(d, 1), before)
        gates, new = self._cut_features(self._pre(d, 0), [2 * self.hidden, self.hidden])
        scaled = self._blocks(self.made[d][-1])
        return b.op("Concat", outer(b, gates, before), outer(b, new, scaled), axis=0)

    def _db(self, d: int) -> Any:
        b = self.b
        by_input = self.inputs.bias_gradient(b, self._pre(d, 0))
        recurrent = self.inputs.total(b, self._pre(d, 1)) if len(self.pre[d]) > 1 else by_input
        return b.op("Concat", by_input, recurrent, axis=0)

    def _dp(self, d: int) -> Any:
        b = self.b
        before, after = (self._blocks(series) for series in self.made[d][-2:])
        di, do, df, _ = self._cut_features(self._pre(d, 0), [self.hidden] * 4)
        sums = []
        for by, cells in ((di, before), (do, after), (df, before)):
            products = [b.op("Mul", x, c) for x, c in zip(by, cells, strict=True)]
            sums.append(self.inputs.total(b, products))
        return b.op("Concat", *sums, axis=0)


def _halves(b: B, x: Any, count: int) -> list[Any]:
    """`x` along its first axis, the direction."""
    if count == 1:
        return [x]
    return list(b.op_multi("Split", x, outputs=2, axis=0, num_outputs=2))


def _forward(
    cell: Cell, b: B, shared: Sequence[Any], states: Sequence[Any], seen: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """A step; beyond the end of a sequence the states stay, and the output is zero."""
    zx, inside, outside = seen
    following, saved = cell.forward(b, shared, states, zx)
    shown = following[0]
    if inside is not None:
        following = [b.op("Mul", x, inside) for x in following]
        shown = following[0]
        following = [
            b.op("Add", x, b.op("Mul", old, outside))
            for x, old in zip(following, states, strict=True)
        ]
    return following, [shown, states[0], *saved]


def _backward(
    cell: Cell,
    masked: bool,
    b: B,
    shared: Sequence[Any],
    states: Sequence[Any],
    seen: Sequence[Any],
) -> tuple[list[Any], list[Any]]:
    """The same step backwards.

    Its states: what reaches h from later steps other than by the recurrent product, what goes back
    through that product, and the gradient of c.
    """
    rest, pre, *others = states
    dy, inside, outside, *saved = seen
    dc, dc_kept, dh_kept = others[0] if others else None, None, None
    if not masked:
        rest, dy = add(b, rest, dy), None
    dh = rest if pre is None else b.op("Gemm", shared[0], pre, rest)
    if masked:
        if dh is not None:
            dh_kept = b.op("Mul", dh, outside)
        if dc is not None:
            dc_kept, dc = b.op("Mul", dc, outside), b.op("Mul", dc, inside)
        dh = add(b, dh, dy)
        dh = None if dh is None else b.op("Mul", dh, inside)
    if dh is None:
        dh = b.full_like(saved[0], 0.0)
    direct, dc, pre, made = cell.backward(b, shared, dh, dc, saved)
    kept = [add(b, dh_kept, direct), pre]
    return [*kept, add(b, dc_kept, dc)] if others else kept, made
