"""An ONNX graph as operations: evaluated node by node, eagerly or in a trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape import context, random
from onnxtape.compiler.dims import is_static
from onnxtape.compiler.errors import Provenance
from onnxtape.compiler.operators import RANDOM
from onnxtape.devices import on_host
from onnxtape.engine import B, convert_to_tensor, emit
from onnxtape.errors import ModelError
from onnxtape.interop import control_flow, foreign_operators, sequences
from onnxtape.interop.limits import Budget
from onnxtape.ops import stop_gradient
from onnxtape.signature import TensorSpec
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

if TYPE_CHECKING:
    import onnx

#: What a name stands for: a tensor, a list of them (a sequence), or a variable, which is read where
#: it is used.
Environment = dict[str, Any]


@dataclass(slots=True, eq=False)
class Node:
    """An operator of the graph.

    Attributes:
        op_type: with its domain, unless that is the standard one.
        attributes: plain Python and NumPy; without the subgraphs.
        last: the values that no later node uses.
        graphs: the subgraphs, by the names of their attributes.
        padding: of a Gather, the row that gets no gradient.
        detached: the inputs through which no gradient flows.
    """

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    name: str
    last: tuple[str, ...] = ()
    graphs: dict[str, Subgraph] = field(default_factory=dict)
    padding: int | None = None
    detached: frozenset[int] = frozenset()

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs, and what the subgraphs capture."""
        if not self.graphs:
            return self.inputs
        return (*self.inputs, *(name for g in self.graphs.values() for name in g.captured))

    @property
    def title(self) -> str:
        return f"{self.op_type} (node '{self.name}')"


@dataclass(frozen=True, slots=True, eq=False)
class Subgraph:
    """A branch of an If, or the body of a Loop or Scan.

    Attributes:
        captured: the values from around it that it uses.
        specs: what the file says of the outputs.
    """

    nodes: list[Node]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: tuple[str, ...]
    specs: tuple[TensorSpec | None, ...]


def nodes_of(source: str, graph: onnx.GraphProto, around: Iterable[str] = ("",)) -> list[Node]:
    """The graph's nodes, checked.

    Args:
        source: the model's name, for messages.
        around: the names of the values around a subgraph.

    Raises:
        ModelError: an operator that ONNX does not have, or an order in which nothing can run.
    """
    known = {*around, *(i.name for i in graph.input), *(t.name for t in graph.initializer)}
    nodes = []
    for proto in graph.node:
        if not any(proto.output):
            continue
        node = _node(source, proto, known)
        if missing := [name for name in node.inputs if name not in known]:
            raise ModelError(
                f"'{source}' is broken: node '{node.name}' ({node.op_type}) reads '{missing[0]}', "
                "which nothing has made before it"
            )
        known.update(node.outputs)
        nodes.append(node)
    return nodes


def _subgraph(source: str, graph: onnx.GraphProto, around: Iterable[str]) -> Subgraph:
    nodes = nodes_of(source, graph, around)
    inputs = tuple(i.name for i in graph.input)
    outputs = tuple(o.name for o in graph.output)
    inside = {"", *inputs, *(name for node in nodes for name in node.outputs)}
    used = [name for node in nodes for name in node.reads] + list(outputs)
    captured = tuple(dict.fromkeys(name for name in used if name not in inside))
    return Subgraph(nodes, inputs, outputs, captured, tuple(map(spec_of, graph.output)))


def spec_of(value: onnx.ValueInfoProto) -> TensorSpec | None:
    """A value's dtype and shape, if it is a tensor and the file says both.

    Dimensions that are open in the file are None.
    """
    import onnx

    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        return None
    dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    return TensorSpec(dims, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type), value.name)


def input_spec(source: str, value: onnx.ValueInfoProto) -> TensorSpec:
    """The dtype and shape of a graph's input; see `spec_of`.

    Raises:
        ModelError: the file does not say them.
    """
    spec = spec_of(value)
    if spec is None:
        raise ModelError(
            f"'{source}' does not say what its input '{value.name}' is: a tensor of known rank "
            "is needed"
        )
    return spec


def _node(source: str, proto: onnx.NodeProto, known: Iterable[str]) -> Node:
    import onnx

    standard = proto.domain in ("", "ai.onnx")
    op_type = proto.op_type if standard else f"{proto.domain}::{proto.op_type}"
    shown = f"{op_type} (node '{proto.name}')"
    if not standard:
        foreign_operators.require_known(op_type, f"'{source}' holds {shown}")
    elif not onnx.defs.has(op_type):
        raise ModelError(f"'{source}' holds the operator {shown}, which ONNX does not have")
    graphs = {a.name: _subgraph(source, a.g, known) for a in proto.attribute if a.HasField("g")}
    if graphs and proto.op_type not in control_flow.OPERATORS:
        raise ModelError(f"'{source}' holds {shown} with a subgraph, which is not supported")
    attributes = {a.name: _value(a) for a in proto.attribute if a.name not in graphs}
    outputs = list(proto.output)
    while outputs and not outputs[-1]:
        outputs.pop()
    inputs = list(proto.input)
    while inputs and not inputs[-1]:
        inputs.pop()
    name = proto.name or next(iter(outputs), op_type)
    return Node(op_type, tuple(inputs), tuple(outputs), attributes, name, graphs=graphs)


def _value(attribute: onnx.AttributeProto) -> Any:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.TENSOR:
        return onnx.numpy_helper.to_array(value)
    if attribute.type == onnx.AttributeProto.STRING:
        return value.decode()
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [v.decode() for v in value]
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return list(value)
    return value


def note_last_uses(nodes: Sequence[Node], kept: Iterable[str]) -> None:
    """Fill in `last`, so that eager evaluation holds no value longer than it is needed."""
    seen = set(kept)
    for node in reversed(nodes):
        fresh = dict.fromkeys(name for name in (*node.reads, *node.outputs) if name)
        node.last = tuple(name for name in fresh if name not in seen)
        seen.update(fresh)
        for graph in node.graphs.values():
            note_last_uses(graph.nodes, graph.outputs)


def evaluate(source: str, nodes: Sequence[Node], values: Environment, *, training: bool) -> None:
    """Apply the nodes in order; `values` holds their inputs and gains their outputs.

    Args:
        training: BatchNormalization uses and tracks the batch's statistics, Dropout drops.
    """
    outer = context.state.origin
    try:
        for node in nodes:
            place = Provenance(source, 0, node.name, context.state.phase)
            context.state.origin = outer or place
            _apply(source, node, values, training)
            for name in node.last:
                values.pop(name, None)
    finally:
        context.state.origin = outer


def fold_constants(
    source: str,
    nodes: Sequence[Node],
    constants: dict[str, np.ndarray[Any, Any]],
    budget: Budget,
) -> list[Node]:
    """Evaluate what depends on constants alone; returns the nodes that are left.

    Args:
        constants: by name; gains what is evaluated.

    Raises:
        ModelError: they would take more than the budget.
    """
    left = []
    with context.eagerly():
        for node in nodes:
            if (
                node.op_type in RANDOM
                or node.op_type in sequences.OPERATORS
                or node.op_type in foreign_operators.OPERATORS
                or node.graphs
                or not node.inputs
                or any(name and name not in constants for name in node.inputs)
            ):
                left.append(node)
                continue
            budget.spend_on(node, constants)
            values: Environment = {n: convert_to_tensor(constants[n]) for n in node.inputs if n}
            evaluate(source, [node], values, training=False)
            constants.update({n: values[n].numpy() for n in node.outputs if n})
    return left


def _apply(source: str, node: Node, values: Environment, training: bool) -> None:
    if node.op_type == "Constant":
        values[node.outputs[0]] = B.constant(constant_of(node))
        return
    operands = [_operand(values, name) if name else None for name in node.inputs]
    for i in node.detached:
        operands[i] = stop_gradient(operands[i])
    if node.graphs:
        graphs: control_flow.Subgraphs = {
            name: _Running(source, graph, values, training) for name, graph in node.graphs.items()
        }
        apply = control_flow.OPERATORS[node.op_type]
        made = apply(f"'{source}': {node.title}", operands, graphs, node.attributes)
        values.update(zip(node.outputs, made, strict=False))
    elif node.op_type == "Identity":
        # Nothing is lost by it: what is known of the operand stays known; it may be a sequence.
        values[node.outputs[0]] = operands[0]
    elif node.op_type in sequences.OPERATORS:
        values[node.outputs[0]] = sequences.OPERATORS[node.op_type](operands, node.attributes)
    elif node.op_type in foreign_operators.OPERATORS:
        _apply_foreign(source, node, operands, values)
    elif node.padding is not None:
        values[node.outputs[0]] = _embed(node, operands)
    elif training and node.op_type == "Dropout":
        _drop(node, operands, values)
    elif training and node.op_type == "BatchNormalization":
        _normalize(node, operands, values)
    else:
        results = _known_results(node, operands) or emit(
            node.op_type, operands, node.attributes, len(node.outputs)
        )
        values.update(zip(node.outputs, results, strict=True))


#: So many numbers at most are computed while tracing: sizes, positions, conditions.
_FEW = 64


def _known_results(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    """What an operator makes of few numbers that are known while tracing.

    Branches and iterations depend on such numbers, and need no If or Loop then.
    """
    if not control_flow.tracing() or node.op_type in RANDOM or not operands:
        return None
    if node.op_type == "Shape":
        shape = B.shape(operands[0])
        if not is_static(shape):
            return None
        start, end = node.attributes.get("start", 0), node.attributes.get("end")
        return [B.constant(np.asarray(shape[start:end], np.int64))]
    known = [None if x is None else B.constant_value(x) for x in operands]
    if any(a is None for a, x in zip(known, operands, strict=True) if x is not None):
        return None
    if sum(a.size for a in known if a is not None) > _FEW:
        return None
    with context.eagerly(), on_host():
        eager = [None if a is None else convert_to_tensor(a) for a in known]
        made = emit(node.op_type, eager, node.attributes, len(node.outputs))
    if sum(x.size for x in made) > _FEW:
        return None
    return [B.constant(x.numpy()) for x in made]


def _apply_foreign(source: str, node: Node, operands: Sequence[Any], values: Environment) -> None:
    made = foreign_operators.evaluate(node.op_type, operands, node.attributes)
    for i, name in enumerate(node.outputs):
        if name and (i >= len(made) or made[i] is None):
            raise ModelError(f"'{source}': {node.title} gives output {i}, which is not supported")
        if name:
            values[name] = made[i]


@dataclass(frozen=True, slots=True)
class _Running:
    """A subgraph with what it captures: see `control_flow.Subgraph`."""

    source: str
    graph: Subgraph
    around: Environment
    training: bool

    @property
    def specs(self) -> Sequence[TensorSpec | None]:
        return self.graph.specs

    def __call__(self, *inputs: Any) -> list[Any]:
        graph = self.graph
        values = {name: self.around[name] for name in graph.captured}
        values.update(zip(graph.inputs, inputs, strict=True))
        evaluate(self.source, graph.nodes, values, training=self.training)
        return [_operand(values, name) for name in graph.outputs]


def _operand(values: Mapping[str, Any], name: str) -> Any:
    value = values[name]
    if value is None or isinstance(value, Tensor) or sequences.is_sequence(value):
        return value
    return convert_to_tensor(value)


def _embed(node: Node, operands: Sequence[Any]) -> Any:
    """Gather, in whose backward pass one row of the table counts as a constant."""
    (rows,) = emit("Gather", operands, node.attributes, 1)
    indices = operands[1]
    padded = B.op("Equal", indices, B.constant(np.asarray(node.padding, indices.dtype)))
    return B.op("Where", B.op("Unsqueeze", padded, [-1]), stop_gradient(rows), rows)


def _drop(node: Node, operands: Sequence[Any], values: Environment) -> None:
    ratio = operands[1] if len(operands) > 1 else None
    known = 0.5 if ratio is None else B.constant_value(ratio)
    if known is None:
        raise ModelError(f"Dropout node '{node.name}' has a ratio that is not a constant")
    if len(node.outputs) > 1:
        raise ModelError(f"Dropout node '{node.name}' gives its mask, which is not supported")
    values[node.outputs[0]] = random.dropout(operands[0], float(known))


def _normalize(node: Node, operands: Sequence[Any], values: Environment) -> None:
    """BatchNormalization with the batch's statistics; variables among the running ones follow."""
    attributes = {**node.attributes, "training_mode": 1}
    made = emit("BatchNormalization", operands, attributes, 3)
    values[node.outputs[0]] = made[0]
    for name, statistic in zip(node.inputs[3:5], made[1:], strict=True):
        variable = values[name]
        if isinstance(variable, Variable):
            variable.assign(statistic)


def constant_of(node: Node) -> np.ndarray[Any, Any]:
    """What a Constant node holds."""
    (name, value), *_ = node.attributes.items()
    dtype = {"value_float": "float32", "value_floats": "float32"}.get(name)
    if name.startswith("value_int"):
        dtype = "int64"
    if name in ("sparse_value", "value_string", "value_strings"):
        raise ModelError(f"Constant node '{node.name}' holds a {name}, which is not supported")
    return np.asarray(value, dtype)
