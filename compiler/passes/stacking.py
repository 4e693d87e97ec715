"""Blocks of small variables as rows of one matrix, and sums of two rows as products with it.

The new value of state is often a * old + b * x: an average takes in a gradient, a variable a step.
Where x lies in memory behind the old value, this is one product of a 1x2 and a 2xn matrix. ONNX
Runtime has a kernel with wide vectors for it, which passes over memory once, instead of two Muls
and an Add. It reads each column before it writes it, so the result may be written over the old
value. (On other processors than x86-64 nobody has looked.) Only for graphs that one thread runs:
ONNX Runtime would divide such a product among threads however little it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.passes import applies
from onnxtape.compiler.passes.pieces import Block, Update, constant, repeated


class Pair(NamedTuple):
    """A node that gives a source of state the new value first * old + second * other.

    Attributes:
        source: the place of the source among the template's inputs.
        other: what is added, which no other pair adds.
        first: a constant factor.
        second: a number, constant or not; or None for 1.
        sign: a further factor of what is added, 1 or -1.
    """

    source: int
    other: ir.Value
    first: float
    second: ir.Value | None
    sign: int


class Stack:
    """An update whose arrays are the rows of one block.

    Args:
        update: what is updated, in blocks of one length without pieces so far.
        numbers: the step's graph's values of the template's numbers.
    """

    def __init__(self, update: Update, numbers: Sequence[ir.Value]) -> None:
        self._update = update
        self._template = update.template
        self._numbers = numbers
        self._roles = self._template.inputs[: len(update.blocks)]
        self._inner = self._template.inputs[len(self._roles) :]  # the template's numbers
        self._constants = {
            id(inner): float(number.const_value.numpy())
            for inner, number in zip(self._inner, numbers, strict=True)
            if number.is_initializer() and number.const_value is not None
        }
        self._pairs: dict[int, Pair] = {}  # by the id of the new value
        self._find_pairs()
        rows: list[ir.Value] = []
        for pair in self._pairs.values():
            rows += [self._roles[pair.source], pair.other]
        placed = {id(value) for value in rows}
        rows += [value for value in self._roles if id(value) not in placed]
        self._row = {id(value): i for i, value in enumerate(rows)}
        self.block = self._block()

    def __bool__(self) -> bool:
        """Whether there is any pair."""
        return bool(self._pairs)

    def _find_pairs(self) -> None:
        taken: set[int] = set()
        count = len(self._template.outputs)
        targets = {id(value) for value in self._template.outputs}
        for place, target in enumerate(self._template.outputs):
            pair = self._pair(place, target)
            if pair is None or id(pair.other) in taken | targets:
                continue
            if any(pair.other is source for source in self._roles[:count]):
                continue
            taken.add(id(pair.other))
            self._pairs[id(target)] = pair

    def _pair(self, place: int, target: ir.Value) -> Pair | None:
        node = target.producer()
        if node is None or not applies(node, "Add", "Sub"):
            return None
        orders = [(node.inputs[0], node.inputs[1])]
        if node.op_type == "Add":
            orders.append((node.inputs[1], node.inputs[0]))
        for old, added in orders:
            if old is None or added is None:
                continue
            kept, first = self._scaled(old)
            other, second = self._scaled(added)
            factor = 1.0 if first is None else self._constants.get(id(first))
            known = second is None or id(second) in self._constants
            if kept is not self._roles[place] or factor is None or not (known or factor == 1.0):
                continue
            # What is of another shape, a number, has no row.
            if any(other is number for number in self._inner):
                continue
            return Pair(place, other, factor, second, -1 if node.op_type == "Sub" else 1)
        return None

    def _scaled(self, value: ir.Value) -> tuple[ir.Value, ir.Value | None]:
        """An array and the number that it is multiplied by in `value`; None where it is not."""
        node = value.producer()
        if node is not None and applies(node, "Mul"):
            for array, number in (tuple(node.inputs), tuple(reversed(node.inputs))):
                if array is not None and any(number is each for each in self._inner):
                    return array, number
        return value, None

    def _block(self) -> Block:
        size = self._update.size
        block = Block(size * len(self._row))
        for value, part in zip(self._roles, self._update.blocks, strict=True):
            begin = self._row[id(value)] * size
            block.members.update({name: begin + at for name, at in part.members.items()})
            results = part.results.items()
            block.results.update({name: (begin + at, shape) for name, (at, shape) in results})
        return block

    def nodes(self, graph: ir.Graph, *, products: bool) -> list[ir.Node]:
        """Nodes that update the block, whose rows become the graph's own inputs and outputs.

        Args:
            products: use them for the pairs.
        """
        pairs = self._pairs if products else {}
        numbers = zip(self._inner, self._numbers, strict=True)
        values = {id(inner): number for inner, number in numbers}
        nodes: list[ir.Node] = []
        for node in self._needed(pairs):
            pair = pairs.get(id(node.outputs[0]))
            if pair is None:
                for value in node.inputs:
                    if value is not None and id(value) in self._row and id(value) not in values:
                        values[id(value)] = self._input(graph, self._row[id(value)], 1)
                made = repeated(node, values)
            else:
                both = self._input(graph, self._row[id(self._roles[pair.source])], 2)
                factors = self._factors(graph, pair, values, nodes)
                made = ir.Node("", "MatMul", [factors, both])
                made.outputs[0].type = node.outputs[0].type
                values[id(node.outputs[0])] = made.outputs[0]
            made.name = f"{self._update.name}.node{len(nodes)}"
            made.outputs[0].name = f"{self._update.name}.value{len(nodes)}"
            made.outputs[0].shape = ir.Shape([1, self._update.size])
            nodes.append(made)
        rows = [self._row[id(source)] for source in self._roles[: len(self._template.outputs)]]
        written = dict(zip(map(id, self._template.outputs), rows, strict=True))
        for pair in pairs.values():
            written |= dict.fromkeys(self._made_in_row(pair.other), self._row[id(pair.other)])
        for key, row in written.items():
            graph.outputs.append(values[key])
            name, begin = values[key].name or "", row * self._update.size
            self.block.outputs.append((name, begin, begin + self._update.size))
        return nodes

    def _needed(self, pairs: dict[int, Pair]) -> list[ir.Node]:
        """The template's nodes, but for those that only products would have needed."""
        needed = {id(value) for value in self._template.outputs}
        found = []
        for node in reversed(list(self._template)):
            target = node.outputs[0]
            if id(target) not in needed:
                continue
            found.append(node)
            pair = pairs.get(id(target))
            used = node.inputs if pair is None else [pair.other]
            needed |= {id(value) for value in used if value is not None}
        return found[::-1]

    def _made_in_row(self, other: ir.Value) -> list[int]:
        """The ids of a computed row and of what becomes it step by step, in the row's memory.

        Memory of one place, and not of several at different distances from a page's beginning, is
        what takes the least time.
        """
        found: list[int] = []
        made: ir.Value | None = other
        while made is not None and (node := made.producer()) is not None:
            found.append(id(made))
            steps = [x for x in node.inputs if x is not None and self._is_step(x)]
            made = steps[0] if steps else None
        return found

    def _is_step(self, value: ir.Value) -> bool:
        """Whether one node makes an array for one other."""
        made = value.producer() is not None and id(value) not in self._row
        return made and len(value.uses()) == 1 and not value.is_graph_output()

    def _input(self, graph: ir.Graph, row: int, count: int) -> ir.Value:
        size = self._update.size
        name = f"{self._update.name}.rows{count}.{row}"
        view = ir.Value(name=name, shape=ir.Shape([count, size]), type=ir.TensorType(_FLOAT))
        graph.inputs.append(view)
        views = self.block.inputs if count == 1 else self.block.pairs
        views.append((name, row * size, (row + count) * size))
        return view

    def _factors(
        self, graph: ir.Graph, pair: Pair, values: dict[int, ir.Value], nodes: list[ir.Node]
    ) -> ir.Value:
        """The pair's factors as a 1x2 matrix; `nodes` computes what is not constant."""
        name = f"{self._update.name}.factors{len(nodes)}"

        def fixed(suffix: str, first: float, second: float) -> ir.Value:
            value = constant(name + suffix, np.asarray([[first, second]], np.float32))
            graph.register_initializer(value)
            return value

        if pair.second is None or id(pair.second) in self._constants:
            second = 1.0 if pair.second is None else self._constants[id(pair.second)]
            return fixed("", pair.first, pair.sign * second)
        scaled = ir.Node("", "Mul", [values[id(pair.second)], fixed(".place", 0.0, pair.sign)])
        total = ir.Node("", "Add", [scaled.outputs[0], fixed(".one", 1.0, 0.0)])
        for node in (scaled, total):
            node.name = f"{name}.{node.op_type}"
            node.outputs[0].name, node.outputs[0].shape = node.name, ir.Shape([1, 2])
            node.outputs[0].type = ir.TensorType(_FLOAT)
            nodes.append(node)
        return total.outputs[0]


_FLOAT = ir.DataType.FLOAT
