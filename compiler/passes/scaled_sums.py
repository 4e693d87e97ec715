"""`w + x * number` as one product of matrices, in the updates that a thread runs by itself.

ONNX Runtime's Gemm puts its C into the result, which is the variable's own memory here, and adds a
product of one row and one column to it by a kernel for such products, with wider vectors than its
elementwise operators have. Only those kernels write in place so: the graph that is exported has Mul
and Add.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from onnxtape.compiler.passes import applies


def fuse_scaled_sums(update: ir.Graph, sources: int, arrays: int) -> list[int]:
    """Rewrite the sums that are new values of state.

    Args:
        update: a graph of float32 values of shape (1, n) and numbers of shape (1, 1). The inputs
            are its sources of state, then other arrays, then numbers; the outputs are the sources'
            new values, in their order, each written in its source's memory. A negated number that a
            difference needs becomes a further input.
        sources: how many sources there are.
        arrays: how many other arrays.

    Returns:
        For each further input, the place among the numbers of the one that it is the negative of.
    """
    states = {id(value) for value in update.inputs[:sources]}
    numbers = {id(value): i for i, value in enumerate(update.inputs[sources + arrays :])}
    negated: dict[int, ir.Value] = {}
    for place, source in enumerate(update.inputs[:sources]):
        total = update.outputs[place]
        node = total.producer()
        found = None if node is None else _scaled_sum(node, source, numbers, states)
        if node is None or found is None:
            continue
        product, array, number = found
        if node.op_type == "Sub":
            number = negated.setdefault(
                numbers[id(number)], ir.Value(name=f"{number.name}.negative", type=number.type)
            )
        made = ir.Node("", "Gemm", [number, array, source], outputs=[_like(total)])
        update.insert_before(node, made)
        total.replace_all_uses_with(made.outputs[0], replace_graph_outputs=True)
        update.remove([node, product], safe=True)
    update.inputs.extend(negated.values())
    return list(negated)


def _scaled_sum(
    node: ir.Node, source: ir.Value, numbers: Mapping[int, int], states: Collection[int]
) -> tuple[ir.Node, ir.Value, ir.Value] | None:
    """The Mul, its array and its number, of a node that adds such a product to the source."""
    if applies(node, "Sub"):
        orders: Sequence[tuple[ir.Value | None, ...]] = [tuple(node.inputs)]
    elif applies(node, "Add"):
        orders = [tuple(node.inputs), tuple(reversed(node.inputs))]
    else:
        return None
    for kept, added in orders:
        product = None if added is None else added.producer()
        if kept is not source or product is None or not applies(product, "Mul"):
            continue
        if added is None or len(added.uses()) > 1 or added.is_graph_output():
            continue
        for array, number in (tuple(product.inputs), tuple(reversed(product.inputs))):
            if array is None or number is None or id(number) not in numbers:
                continue
            # The old value of state may be gone by the time of the sum.
            if id(array) not in numbers and id(array) not in states:
                return product, array, number
    return None


def _like(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, shape=value.shape, type=value.type)
