"""Graphs with the operators of ai.onnx.preview.training among standard ones, evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import ModelError
from onnxtape.interop.graph import Environment, Node, evaluate, nodes_of
from onnxtape.interop.preparing import prepared
from onnxtape.interop.training_operators import DOMAIN, update
from onnxtape.tape import GradientTape

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True, eq=False)
class TrainingNode:
    """An operator of ai.onnx.preview.training."""

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs."""
        return self.inputs


@dataclass(frozen=True, slots=True)
class TrainingGraph:
    """A graph in which the nodes stand in an order that can be run.

    Attributes:
        source: the model's name, for messages.
        proto: the initializers and inputs; brought up to an opset that can be run.
    """

    source: str
    nodes: list[Node | TrainingNode]
    proto: onnx.GraphProto

    @classmethod
    def of(cls, source: str, model: onnx.ModelProto) -> TrainingGraph:
        """Read a graph; its standard operators are brought up to a newer opset.

        Raises:
            ModelError: it cannot be brought up, or holds what ONNX does not have.
        """
        import onnx

        own = [node for node in model.graph.node if node.domain == DOMAIN]
        training = [_training_node(node) for node in own]
        plain = onnx.ModelProto()
        plain.CopyFrom(model)
        del plain.graph.node[:], plain.graph.output[:], plain.training_info[:]
        plain.graph.node.extend(node for node in model.graph.node if node.domain != DOMAIN)
        opsets = [opset for opset in model.opset_import if opset.domain != DOMAIN]
        del plain.opset_import[:]
        plain.opset_import.extend(opsets or [onnx.helper.make_opsetid("", 21)])
        # What the training operators make comes from outside, meanwhile; what they name, and the
        # outputs, must keep their names.
        typed = onnx.TensorProto.FLOAT
        plain.graph.input.extend(
            onnx.helper.make_tensor_value_info(name, typed, None)
            for node in training
            for name in node.outputs
        )
        named = [name for node in training for name in (*node.inputs, *_named(node))]
        made = {name for node in plain.graph.node for name in node.output}
        outputs = dict.fromkeys([*named, *(o.name for o in model.graph.output)])
        plain.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, typed, None)
            for name in outputs
            if name in made
        )
        graph = prepared(source, plain).graph
        nodes: list[Node | TrainingNode] = [*nodes_of(source, graph), *training]
        del graph.input[len(graph.input) - sum(len(node.outputs) for node in training) :]
        known = {"", *(i.name for i in graph.input), *(t.name for t in graph.initializer)}
        return cls(source, _in_order(source, nodes, known), graph)

    def needed_for(self, outputs: Iterable[str], given: Iterable[str] = ()) -> TrainingGraph:
        """The graph with the nodes alone that the outputs need, where some values are given."""
        wanted, stops = set(outputs), set(given)
        nodes = []
        for node in reversed(self.nodes):
            if not (wanted - stops).isdisjoint(node.outputs):
                nodes.append(node)
                wanted.update(node.reads)
        return TrainingGraph(self.source, nodes[::-1], self.proto)

    def run(self, values: Environment) -> None:
        """Apply the nodes; `values` holds what they read from outside, and gains their outputs."""
        for node in self.nodes:
            if isinstance(node, Node):
                evaluate(self.source, [node], values, training=False)
                continue
            operands = [convert_to_tensor(values[name]) for name in node.inputs]
            if node.op_type == "Gradient":
                made: Sequence[Any] = self._gradient(node, operands, values)
            else:
                made = update(node.op_type, operands, node.attributes)
            values.update(zip(node.outputs, made, strict=False))

    def _gradient(
        self, node: TrainingNode, operands: Sequence[Any], values: Environment
    ) -> Sequence[Any]:
        """The derivatives of `y` by `xs`, in the part of the graph from there, for these values."""
        xs, y = node.attributes["xs"], node.attributes["y"]
        given = [*xs, *node.attributes.get("zs", ())]
        if len(given) != len(operands):
            raise ModelError(
                f"'{self.source}' has a Gradient of {len(given)} tensors, with "
                f"{len(operands)} values for them"
            )
        # Of their own, so that nothing is differentiated but the part named.
        inner = dict(zip(given, (B.op("Identity", x) for x in operands), strict=True))
        part = self.needed_for([y], given)
        inside = {name for other in part.nodes for name in other.outputs}
        with GradientTape() as tape:
            tape.watch([inner[name] for name in xs])
            outside = {n: v for n, v in values.items() if n not in inside and n not in inner}
            environment: Environment = {**outside, **inner}
            part.run(environment)
            target = convert_to_tensor(environment[y])
        found: Sequence[Any] = tape.gradient(
            target, [inner[name] for name in xs], unconnected_gradients="zero"
        )
        return found


def _training_node(proto: onnx.NodeProto) -> TrainingNode:
    import onnx

    attributes: dict[str, Any] = {}
    for attribute in proto.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif attribute.type == onnx.AttributeProto.STRINGS:
            value = [text.decode() for text in value]
        attributes[attribute.name] = value
    return TrainingNode(proto.op_type, tuple(proto.input), tuple(proto.output), attributes)


def _named(node: TrainingNode) -> list[str]:
    """The values that a Gradient names in its attributes."""
    given = [*node.attributes.get("xs", ()), *node.attributes.get("zs", ())]
    return [*given, node.attributes["y"]] if "y" in node.attributes else given


def _in_order(
    source: str, nodes: Sequence[Node | TrainingNode], known: set[str]
) -> list[Node | TrainingNode]:
    ordered: list[Node | TrainingNode] = []
    pending = list(nodes)
    while pending:
        left = []
        for node in pending:
            if known.issuperset(node.reads):
                ordered.append(node)
                known.update(node.outputs)
            else:
                left.append(node)
        if len(left) == len(pending):
            missing = next(name for name in left[0].reads if name not in known)
            raise ModelError(
                f"'{source}' is broken: {left[0].op_type} reads '{missing}', which nothing makes"
            )
        pending = left
    return ordered
