"""Scaling of a layer's output by a number, done by the products before and after it."""

from __future__ import annotations

import onnx_ir as ir

from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.passes import applies
from onnxtape.compiler.passes.fold_scale import constant_number
from onnxtape.compiler.passes.products import ProductsPass, fuse, is_product

#: Larger numbers, and smaller ones than its inverse, might overflow where nothing did before.
_MOST = 64.0


class ScaledLayers(ProductsPass):
    """Of y = x W + b only c y is made, where it is all that is needed but for a factor of products.

    Gelu is c y = u, s = (1 + erf(u)) / 2 and then y s, which goes into products: these take u s,
    and a factor of 1 / c. The product with W takes c as its factor, and the bias, which a Gemm
    would copy to every row first, is added where the pass that made u was. For 1024 rows and 512
    columns on two threads: 0.95 ms of kernels before, 0.75 after.
    """

    adds = frozenset(["FusedMatMul", "Mul"])
    may_grow = True

    def run(self, model: ir.Model) -> bool:
        builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        changed = False
        for node in list(model.graph):
            changed |= _fold(model, builder, node)
        return changed


def _fold(model: ir.Model, builder: GraphBuilder, scaling: ir.Node) -> bool:
    """Fold the Mul by a number, if it is one of this kind; whether it was."""
    if not applies(scaling, "Mul"):
        return False
    y, factor = scaling.inputs
    if constant_number(builder, y) is not None:
        y, factor = factor, y
    number = constant_number(builder, factor)
    layer = None if y is None else _layer(y)
    if number is None or y is None or layer is None or scaling.outputs[0].is_graph_output():
        return False
    if not 1 / _MOST <= abs(number) <= _MOST:
        return False
    others = [user for user, _ in y.uses() if user is not scaling]
    if len(y.uses()) != 2 or len(others) != 1 or not applies(others[0], "Mul"):
        return False
    rest = others[0]
    takers = _takers(rest.outputs[0])
    if not takers:
        return False
    scaled = scaling.outputs[0]
    product, index = layer
    add = y.producer()
    assert add is not None
    _scale(model, product, number)
    _scale_bias(builder, add, 1 - index, factor)
    ir.convenience.replace_all_uses_with(scaled, y)
    model.graph.remove(scaling, safe=True)
    for taker in takers:
        _scale(model, taker, 1.0 / number)
    return True


def _layer(y: ir.Value) -> tuple[ir.Node, int] | None:
    """The product that y is with a vector added, and which input of that sum it is."""
    add = y.producer()
    if add is None or not applies(add, "Add") or y.is_graph_output():
        return None
    for index in (0, 1):
        part, bias = add.inputs[index], add.inputs[1 - index]
        product = None if part is None else part.producer()
        if part is None or product is None or not is_product(product):
            continue
        vector = bias is not None and bias.shape is not None and len(bias.shape) == 1
        if vector and len(part.uses()) == 1 and not part.is_graph_output():
            return product, index
    return None


def _takers(value: ir.Value) -> list[ir.Node]:
    """The products that take the value, reshaped perhaps; none if others take it too."""
    found: list[ir.Node] = []
    pending: list[ir.Value] = [value]
    while pending:
        value = pending.pop()
        if value.is_graph_output():
            return []
        for user, index in value.uses():
            if applies(user, "Reshape") and index == 0:
                pending.append(user.outputs[0])
            elif index < 2 and _is_scalable(user) and user not in found:
                found.append(user)
            else:
                return []
    return found


def _is_scalable(node: ir.Node) -> bool:
    if applies(node, "Gemm"):
        return node.outputs[0].dtype == ir.DataType.FLOAT
    return is_product(node)


def _scale(model: ir.Model, product: ir.Node, number: float) -> None:
    """Multiply the product by a number."""
    if applies(product, "MatMul"):
        fuse(model, product)
    alpha = product.attributes["alpha"].as_float() if "alpha" in product.attributes else 1.0
    product.attributes["alpha"] = ir.AttrFloat32("alpha", alpha * number)


def _scale_bias(builder: GraphBuilder, add: ir.Node, index: int, factor: ir.Value | None) -> None:
    with builder.before(add):
        add.replace_input_with(index, builder.op("Mul", add.inputs[index], factor))
