"""Bringing a model that was read into the form that is run: one opset, nothing local."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from onnxtape.errors import ModelError
from onnxtape.interop.fused_operators import DOMAIN
from onnxtape.interop.graph import nodes_of
from onnxtape.interop.inner_tensors import lift_tensors, subgraphs_of
from onnxtape.interop.limits import require_few_nodes

if TYPE_CHECKING:
    import onnx

#: The opset that models are brought up to, and the last that ONNX Runtime loads.
OPSET, LAST_OPSET = 21, 26


def prepared(name: str, original: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model without local functions, at least of opset 21.

    Its subgraphs hold no tensors (see `inner_tensors`), and each value has a name of its own.

    Raises:
        ModelError: the opset is too new, or cannot be brought up.
    """
    import onnx
    import onnx.inliner
    import onnx.version_converter

    opsets = {o.domain or "": o.version for o in original.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 1))
    if opset > LAST_OPSET:
        raise ModelError(
            f"'{name}' is of opset {opset}; ONNX Runtime loads up to {LAST_OPSET}. Export it again "
            f"with opset {LAST_OPSET} or less"
        )
    model = onnx.ModelProto()
    model.CopyFrom(original)
    try:
        if model.functions:
            require_few_nodes(model)
            _fill_defaults(model)
            model = onnx.inliner.inline_local_functions(model)
        _name_domains(model.graph, opset)
        if opset < OPSET:
            if opset >= 18:
                _spread_groups(model.graph)
            if opset < 9:
                _require_no_scan(model.graph)
            # Else the converter asks for initializers among the inputs, as ONNX Runtime does not.
            model.ir_version = max(model.ir_version, 4)
            model = onnx.version_converter.convert_version(model, OPSET)
            if opset < 11:
                _keep_grid(model.graph)
        _as_standard(model.graph)
        _time_first(model.graph)
        _guard_quotients(model.graph)
    except Exception as error:
        if not model.functions:
            nodes_of(name, model.graph)  # Says better what it is, if it is an operator or a name.
        reason = " ".join(str(error).split())
        raise ModelError(
            f"'{name}' is of opset {opset} and cannot be brought up to {OPSET}: {reason}"
        ) from error
    lift_tensors(model.graph)
    return model


def _fill_defaults(model: onnx.ModelProto) -> None:
    """Give calls of local functions the attributes that they leave out.

    The inliner knows no defaults.
    """
    defaults = {(f.domain, f.name): f.attribute_proto for f in model.functions}

    def fill(nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            for inner in subgraphs_of(node):
                fill(inner.node)
            given = {a.name for a in node.attribute}
            known = defaults.get((node.domain, node.op_type), ())
            node.attribute.extend(a for a in known if a.name not in given)

    fill(model.graph.node)
    for function in model.functions:
        fill(function.node)


#: What ONNX Runtime had before ONNX, and means the same.
_ADOPTED = ("Gelu", "LayerNormalization", "Trilu")


def _name_domains(graph: onnx.GraphProto, opset: int) -> None:
    """ONNX Runtime's tools write some operators into the standard domain, which lacks them.

    The converter does not take them there.
    """
    import onnx

    for node in graph.node:
        for inner in subgraphs_of(node):
            _name_domains(inner, opset)
        adopted = node.op_type in (*_ADOPTED, "SimplifiedLayerNormalization")
        if adopted and node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type, opset):
            node.domain = DOMAIN


def _as_standard(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        for inner in subgraphs_of(node):
            _as_standard(inner)
        if node.domain == DOMAIN and node.op_type in _ADOPTED:
            node.domain = ""


# Where the time-first form has the axes of the batch-first one, and the other way round.
_SWAPPED, _OUTPUT_SWAPPED = [1, 0, 2], [2, 0, 1, 3]


def _time_first(graph: onnx.GraphProto) -> None:
    """Recurrent operators whose first axis is the batch, for which ONNX Runtime has no kernels."""
    from onnx import helper

    nodes = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            _time_first(inner)
        layout = [a for a in node.attribute if a.name == "layout" and a.i]
        if not layout or node.op_type not in ("GRU", "LSTM", "RNN") or node.domain:
            nodes.append(node)
            continue
        node.attribute.remove(layout[0])
        made = [name for name in node.output if name]
        for i in (0, 5, 6):
            if i < len(node.input) and node.input[i]:
                swapped = f"{made[0]}.time_first{i}"
                nodes.append(
                    helper.make_node("Transpose", [node.input[i]], [swapped], perm=_SWAPPED)
                )
                node.input[i] = swapped
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name:
                perm = _SWAPPED if i else _OUTPUT_SWAPPED
                node.output[i] = f"{name}.time_first"
                nodes.append(helper.make_node("Transpose", [node.output[i]], [name], perm=perm))
    if len(nodes) > len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)


def _require_no_scan(graph: onnx.GraphProto) -> None:
    """Scan of opset 8 runs each example apart, of which the converter knows nothing."""
    for node in graph.node:
        for inner in subgraphs_of(node):
            _require_no_scan(inner)
        if node.op_type == "Scan":
            raise ModelError(
                f"Scan '{node.name or node.output[0]}' takes examples one by one, as it did in "
                "opset 8 alone; export with opset 9 or later"
            )


def _keep_grid(graph: onnx.GraphProto) -> None:
    """Resize and Upsample before opset 11 know one grid, which is not the later default.

    The converter leaves it open. ONNX Runtime takes the nearest element from below where an axis
    grows and from above where it shrinks, which the later operator cannot do for both at once.
    """
    from onnx import helper, numpy_helper

    known = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        for inner in subgraphs_of(node):
            _keep_grid(inner)
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            known[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        if node.op_type == "Resize":
            given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            scales = known.get(node.input[2], 1.0)
            shrinks = bool(np.any(scales < 1))
            if shrinks and np.any(scales > 1) and given.get("mode", b"nearest") == b"nearest":
                raise ModelError(
                    f"Resize '{node.name or node.output[0]}' makes some axes longer and others "
                    "shorter, by the nearest element; split it in two, or export with opset 11"
                )
            grid = {
                "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "ceil" if shrinks else "floor",
            }
            missing = {name: mode for name, mode in grid.items() if name not in given}
            node.attribute.extend(helper.make_attribute(*item) for item in missing.items())


def _spread_groups(graph: onnx.GraphProto) -> None:
    """GroupNormalization before opset 21 scales groups, since then channels.

    The converter does it for channels of known number alone.
    """
    from onnx import helper

    nodes = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            _spread_groups(inner)
        if node.op_type == "GroupNormalization":
            stem = f"{node.output[0]}_spread"
            groups = next(a.i for a in node.attribute if a.name == "num_groups")

            def value(*made: int, name: str) -> onnx.NodeProto:
                return helper.make_node("Constant", [], [name], value_ints=list(made))

            nodes += [
                value(groups, name=f"{stem}_groups"),
                value(groups, 1, name=f"{stem}_column"),
                value(-1, name=f"{stem}_flat"),
                helper.make_node("Shape", [node.input[0]], [f"{stem}_channels"], start=1, end=2),
                helper.make_node("Div", [f"{stem}_channels", f"{stem}_groups"], [f"{stem}_size"]),
                helper.make_node(
                    "Concat", [f"{stem}_groups", f"{stem}_size"], [f"{stem}_shape"], axis=0
                ),
            ]
            for i in (1, 2):
                names = [f"{stem}_{part}{i}" for part in ("as_column", "expanded", "flattened")]
                nodes += [
                    helper.make_node("Reshape", [node.input[i], f"{stem}_column"], [names[0]]),
                    helper.make_node("Expand", [names[0], f"{stem}_shape"], [names[1]]),
                    helper.make_node("Reshape", [names[1], f"{stem}_flat"], [names[2]]),
                ]
                node.input[i] = names[2]
        nodes.append(node)
    if len(nodes) > len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)


def _guard_quotients(graph: onnx.GraphProto) -> None:
    """Where(x == 0, a, n / d), with a multiple d of x, divides by Where(x == 0, 1, d).

    The quotients that the test leaves out are 0 / 0, and so would be their gradients. sinc is
    exported so, whose gradient PyTorch knows.
    """
    from onnx import helper

    makers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    moved: set[str] = set()
    nodes_before: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for inner in subgraphs_of(node):
            _guard_quotients(inner)
        if node.op_type != "Where":
            continue
        test, quotient = makers.get(node.input[0]), makers.get(node.input[2])
        if test is None or quotient is None or uses[quotient.output[0]] > 1:
            continue
        if (test.op_type, quotient.op_type) != ("Equal", "Div"):
            continue
        divisor = quotient.input[1]
        maker = makers.get(divisor)
        factors = maker.input if maker is not None and maker.op_type == "Mul" else ()
        if {divisor, *factors}.isdisjoint(test.input):
            continue
        name = quotient.output[0]
        one, ones, guarded = (f"{name}.{part}" for part in ("one", "ones", "divisor"))
        quotient.input[1] = guarded
        moved.add(name)
        nodes_before[node.output[0]] = [
            helper.make_node("Constant", [], [one], value_float=1.0),
            helper.make_node("CastLike", [one, divisor], [ones]),
            helper.make_node("Where", [node.input[0], ones, divisor], [guarded]),
            quotient,
        ]
    if not moved:
        return
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += nodes_before.get(node.output[0], ())
        if node.output[0] not in moved:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
