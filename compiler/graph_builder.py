"""A `Builder` that appends to an onnx_ir graph and infers shapes and dtypes as it goes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_shape_inference import ShapeInferenceContext, registry

from onnxtape.compiler import dtypes
from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import Shape
from onnxtape.compiler.errors import Phase, Provenance, ShapeError, describe_operands, located
from onnxtape.compiler.graph_names import NODE_SUFFIX, symbols_in, taken_in
from onnxtape.compiler.inference import BROADCASTING as BROADCASTING
from onnxtape.compiler.inference import infer, shape_of
from onnxtape.compiler.notes import SUPERSEDED, Composite, composites
from onnxtape.compiler.operands import check_dtypes, described, dtype_of
from onnxtape.compiler.operators import lowest_opset
from onnxtape.compiler.record import Record
from onnxtape.compiler.target import CPU, Target


class GraphBuilder(Builder[ir.Value]):
    """Appends nodes to `graph`, or leaves them unattached when `graph` is None.

    Args:
        graph: where nodes and constants go.
        opset: the default-domain opset version of the emitted operators; it rises, and the
            graph's with it, where an operator needs a later one.
        around: where `graph` is a subgraph, the builder of the graph that it is to be part of.
        target: where the graph is to run; that of `around` where there is one.

    Attributes:
        provenance: the user's place, noted on each node; None keeps no notes.
    """

    def __init__(
        self,
        graph: ir.Graph | None,
        *,
        opset: int = 21,
        around: GraphBuilder | None = None,
        target: Target = CPU,
    ) -> None:
        registry.collect()
        self.graph = graph
        self.opset = opset
        self.provenance: Provenance | None = None if around is None else around.provenance
        self._around = around
        self._target = target if around is None else around.target
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._counter = 0
        self._successor: ir.Node | None = None

    # Looking through the graph takes longer than many a pass, which then finds nothing to emit.
    @functools.cached_property
    def _scope(self) -> tuple[set[str], ShapeInferenceContext]:
        """The names that are taken, and what shapes are inferred with."""
        return _shared(self.graph, self.opset) if self._around is None else self._around._scope

    @property
    def _taken(self) -> set[str]:
        return self._scope[0]

    @property
    def _context(self) -> ShapeInferenceContext:
        return self._scope[1]

    # Builder ------------------------------------------------------------------------------------

    @property
    def target(self) -> Target:
        return self._target

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        outputs: int = 1,
    ) -> tuple[ir.Value, ...]:
        self._admit(op_type, attributes, len(inputs), outputs)
        check_dtypes(op_type, self.opset, inputs, self.provenance)
        node = ir.Node(
            "",
            op_type,
            inputs,
            attributes=[_attribute(k, v) for k, v in attributes.items()],
            num_outputs=outputs,
            metadata_props=self._metadata(),
        )
        for output in node.outputs:
            output.name = self.unique_name(op_type)
        node.name = f"{node.outputs[0].name}{NODE_SUFFIX}"
        self._infer(node)
        if self._successor is not None and self._successor.graph is not None:
            self._successor.graph.insert_before(self._successor, node)
        elif self.graph is not None:
            self.graph.append(node)
        return tuple(node.outputs)

    def _metadata(self) -> dict[str, str] | None:
        if self._successor is not None:
            return dict(self._successor.metadata_props)
        if self.provenance is None:
            return None if self._around is None else self._around._metadata()
        return self.provenance.to_metadata()

    def constant(self, array: npt.ArrayLike) -> ir.Value:
        data = np.asarray(array)
        key = (data.dtype.str + data.dtype.name, data.shape, data.tobytes())
        value = self._constants.get(key)
        if value is None:
            name = self.unique_name("const")
            # A copy: the caller may write to its array later.
            tensor = ir.tensor(np.array(data), name=name)
            value = ir.Value(
                name=name,
                shape=ir.Shape(data.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            if self.graph is not None:
                self.graph.register_initializer(value)
            self._constants[key] = value
        return value

    def shape(self, value: ir.Value) -> Shape | None:
        return shape_of(value)

    def dtype(self, value: ir.Value) -> dtypes.DType:
        return dtype_of(value)

    def constant_value(self, value: ir.Value) -> npt.NDArray[Any] | None:
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None or (value.is_graph_input() and value.is_initializer()):
            return None
        return tensor.numpy()

    def refine_shape(self, value: ir.Value, shape: Shape | None) -> ir.Value:
        if shape is None:
            return value
        known = self.shape(value)
        if known is None or len(known) != len(shape):
            value.shape = ir.Shape(shape)
        else:
            # A number says more than a symbol; what `shape` calls by name, keeps that name.
            value.shape = ir.Shape(
                [
                    k if isinstance(k, int) or s is None else s
                    for k, s in zip(known, shape, strict=True)
                ]
            )
        return value

    def outputs_of(self, record: Record[ir.Value], count: int) -> tuple[ir.Value, ...] | None:
        node = record.outputs[0].producer()
        if node is None:
            return None
        if len(node.outputs) < count:
            node.resize_outputs(count)
            self._infer(node)
        for output in node.outputs[:count]:
            if not output.name:
                output.name = self.unique_name(node.op_type)
        return tuple(node.outputs[:count])

    def supersede(self, value: ir.Value, make: Callable[[], ir.Value]) -> None:
        if self.graph is not None:
            superseded = self.graph.meta.setdefault(SUPERSEDED, {})
            if value not in superseded:
                superseded[value] = make()

    def note(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        output: ir.Value,
        attributes: Mapping[str, Sequence[int]],
    ) -> None:
        if self.graph is not None:
            composites(self.graph).append(Composite(op_type, tuple(inputs), output, attributes))

    @contextmanager
    def origin(self, provenance: Provenance | None, phase: Phase) -> Iterator[None]:
        previous = self.provenance
        self.provenance = (provenance or Provenance()).with_phase(phase)
        try:
            yield
        finally:
            self.provenance = previous

    @contextmanager
    def before(self, node: ir.Node) -> Iterator[None]:
        """What is emitted inside comes before `node`, of this graph or one in it, and stems from
        where that does."""
        self._successor = node
        try:
            yield
        finally:
            self._successor = None

    def take_place(self, node: ir.Node, *values: ir.Value) -> None:
        """Put values of this graph in the place of a node's outputs, whose names, dtypes and shapes
        they take over, and remove the node."""
        graph = node.graph
        if graph is None:
            raise ValueError(f"'{node.name}' is in no graph")
        ir.convenience.replace_nodes_and_values(graph, node, [node], [], node.outputs, values)

    # Subgraphs ----------------------------------------------------------------------------------

    @property
    def subgraph(self) -> ir.Graph:
        """The graph that is built; ValueError where nodes are left unattached."""
        if self.graph is None:
            raise ValueError("this builder has no graph")
        return self.graph

    def symbol(self, value: ir.Value) -> ir.Value:
        return value

    def nested(self, name: str, graph: ir.Graph | None = None) -> GraphBuilder:
        """A builder for a subgraph, a new one unless it is given."""
        if graph is None:
            graph = ir.Graph([], [], nodes=[], name=self.unique_name(name))
        return GraphBuilder(graph, opset=self.opset, around=self)

    def emit_with_subgraphs(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any],
        outputs: int,
        scope: Sequence[ir.Value],
    ) -> list[ir.Value]:
        return list(self.emit(op_type, inputs, attributes, outputs))

    def add_outputs(
        self, record: Record[ir.Value], types: Sequence[tuple[ir.TypeProtocol, ir.Shape | None]]
    ) -> list[ir.Value]:
        node = record.outputs[0].producer()
        if node is None:
            raise ValueError(f"{record.title} is no node of a graph")
        count = len(node.outputs)
        node.resize_outputs(count + len(types))
        added = list(node.outputs[count:])
        for output, (kind, shape) in zip(added, types, strict=True):
            output.name = self.unique_name(node.op_type)
            output.type, output.shape = kind, shape
        return added

    def input_like(self, value: ir.Value) -> ir.Value:
        """Append a graph input of the value's type and shape."""
        made = ir.Value(
            name=self.claim_name(value.name or "input"), shape=value.shape, type=value.type
        )
        self.subgraph.inputs.append(made)
        return made

    def copy(
        self, node: ir.Node, inputs: Sequence[ir.Value | None], attributes: Sequence[ir.Attr]
    ) -> tuple[ir.Value, ...]:
        """Append a node like `node`, of any domain, on other inputs; returns its outputs."""
        copied = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            attributes=attributes,
            num_outputs=len(node.outputs),
            metadata_props=dict(node.metadata_props),
        )
        for output, original in zip(copied.outputs, node.outputs, strict=True):
            output.name = self.unique_name(node.op_type) if original.name else ""
            output.type, output.shape = original.type, original.shape
        copied.name = f"{copied.outputs[0].name}{NODE_SUFFIX}"
        unknown = any(o.type is None or o.shape is None for o in copied.outputs)
        if node.domain in ("", "ai.onnx"):
            self._admit(node.op_type, node.attributes, len(inputs), len(node.outputs))
            if unknown:
                self._infer(copied)
        self.subgraph.append(copied)
        return tuple(copied.outputs)

    # Names and values ---------------------------------------------------------------------------

    def unique_name(self, stem: str) -> str:
        """A value name that this graph, and those around it, do not hold yet."""
        if self._around is not None:
            return self._around.unique_name(stem)
        while True:
            self._counter += 1
            name = f"{stem}_{self._counter}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def has_name(self, name: str) -> bool:
        """Whether a value of this graph, or of those around it, has this name."""
        return name in self._taken

    def claim_name(self, name: str) -> str:
        """`name` itself if no value has it yet, else the next free one; taken from then on."""
        if name in self._taken:
            return self.unique_name(name)
        self._taken.add(name)
        return name

    def declare(self, name: str, dtype: dtypes.DType, shape: Shape) -> ir.Value:
        """A value without a producer, under `name` if that is free; not yet a graph input."""
        self._context.reserve_symbol_names(symbols_in(shape))
        return ir.Value(
            name=self.claim_name(name),
            shape=ir.Shape(shape),
            type=ir.TensorType(ir.DataType(dtypes.to_onnx(dtype))),
        )

    def input(self, name: str, dtype: dtypes.DType, shape: Shape) -> ir.Value:
        """Append a graph input."""
        if self.graph is None:
            raise ValueError("this builder has no graph to give an input")
        value = self.declare(name, dtype, shape)
        self.graph.inputs.append(value)
        return value

    # Checks -------------------------------------------------------------------------------------

    def _admit(self, op_type: str, attributes: Iterable[str], inputs: int, outputs: int) -> None:
        """Raise the opset to one that has the operator."""
        opset = lowest_opset(op_type, self.opset, attributes, inputs, outputs)
        if opset > self.opset:
            self._raise_opset(opset)

    def _raise_opset(self, opset: int) -> None:
        self.opset = max(self.opset, opset)
        if self._around is not None:
            self._around._raise_opset(opset)
        elif self.graph is not None:
            imports = self.graph.opset_imports
            imports[""] = max(imports.get("", 0), opset)

    def _infer(self, node: ir.Node) -> None:
        try:
            infer(self._context, node, self.opset)
        except ValueError as error:
            inputs = node.inputs
            # The node is not to be: its inputs must not count it among their users.
            for i in range(len(inputs)):
                node.replace_input_with(i, None)
            reason = getattr(error, "message", str(error))
            raise ShapeError(
                located(
                    f"{node.op_type}: {reason}" + describe_operands(described(inputs)),
                    self.provenance,
                )
            ) from None


def _shared(graph: ir.Graph | None, opset: int) -> tuple[set[str], ShapeInferenceContext]:
    """The names taken in the graph, of values and of dimensions, for all builders that it has."""
    if graph is None:
        return set(), ShapeInferenceContext(opset_imports={"": opset})
    notes = graph.meta.setdefault(
        "onnxtape.builders", (set(), ShapeInferenceContext(opset_imports={"": opset}))
    )
    taken, context = notes
    names, symbols = taken_in(graph)
    # Inference names what it does not know; in this graph those names must be new.
    context.reserve_symbol_names(symbols)
    taken |= names
    return taken, context


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, np.ndarray):
        value = ir.tensor(value)
    elif isinstance(value, (bool, np.integer)):
        value = int(value)
    return ir.convenience.convert_attribute(name, value)
