"""Writing nodes that work on blocked values, or change to and from that layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxtape.compiler.dims import Dim
from onnxtape.compiler.graph_builder import GraphBuilder
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import applies

NCHWC = "com.microsoft.nchwc"


def known_sizes(value: ir.Value) -> list[int]:
    """The sizes of a value that are known: all of them, or all but the batch's."""
    return [d for d in shape_of(value) or () if isinstance(d, int)]


class BlockedWriter:
    """Inserts nodes into a graph, before the node that is being rewritten.

    Args:
        block: the numbers in a block of channels.
        threads: how many share an operator's work.
    """

    def __init__(self, model: ir.Model, block: int, threads: int) -> None:
        self.block = block
        self.threads = threads
        self._graph = model.graph
        self._builder = GraphBuilder(model.graph, opset=model.opset_imports.get("", 21))
        self._blocked: dict[ir.Value, ir.Value] = {}
        self._missing: dict[str, ir.Value] = {}
        self._node: ir.Node | None = None

    def before(self, node: ir.Node) -> None:
        """Insert before this node from now on, with its notes. Nodes must come in their order."""
        self._node = node

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | list[int] | None],
        shape: Sequence[Dim],
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Insert a node with one output, which has this shape and the first input's dtype."""
        assert self._node is not None
        values = [self.integers(x) if isinstance(x, list) else x for x in inputs]
        first = values[0]
        assert first is not None
        node = ir.Node(
            domain,
            op_type,
            values,
            attributes=[ir.convenience.convert_attribute(k, v) for k, v in attributes.items()],
            metadata_props=dict(self._node.metadata_props),
        )
        value = node.outputs[0]
        value.name = self._builder.unique_name(op_type)
        node.name = f"{value.name}_node"
        value.type, value.shape = first.type, ir.Shape(shape)
        self._graph.insert_before(self._node, node)
        return value

    def constant(self, array: Any) -> ir.Value:
        return self._builder.constant(array)

    def integers(self, numbers: list[int]) -> ir.Value:
        return self.constant(np.asarray(numbers, np.int64))

    def missing(self, value: ir.Value) -> ir.Value:
        """How many images a batch of unknown size lacks to be whole blocks, one at least: (1,)."""
        name = (shape_of(value) or (None,))[0]
        found = self._missing.get(name) if isinstance(name, str) else None
        if found is None:
            size = self.op("Shape", [value], [1], end=1)
            size.type = ir.TensorType(ir.DataType.INT64)
            more = self.op("Add", [size, [self.block - 1]], [1])
            blocks = self.op("Max", [self.op("Div", [more, [self.block]], [1]), [1]], [1])
            found = self.op("Sub", [self.op("Mul", [blocks, [self.block]], [1]), size], [1])
            if isinstance(name, str):
                self._missing[name] = found
        return found

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """The value in a shape that is known, but for one -1."""
        return self.op("Reshape", [value, list(shape)], [None if d < 0 else d for d in shape])

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        shape = shape_of(value) or ()
        return self.op("Transpose", [value], [shape[axis] for axis in perm], perm=list(perm))

    def replace(self, node: ir.Node, value: ir.Value) -> None:
        """Put `value` in the place of the node's only output, and remove the node."""
        old = node.outputs[0]
        value.name, value.shape = old.name, old.shape
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)

    # Layouts ------------------------------------------------------------------------------------

    def blocked(self, value: ir.Value) -> ir.Value:
        """(n, channels, height, width) with its channels, whole blocks of them, in blocks."""
        maker = value.producer()
        if maker is not None and maker.domain == NCHWC and maker.op_type == "ReorderOutput":
            plain = maker.inputs[0]
            assert plain is not None
            return plain
        found = self._blocked.get(value)
        if found is None:
            found = self.op("ReorderInput", [value], shape_of(value) or (), NCHWC)
            self._blocked[value] = found
        return found

    def plain(self, value: ir.Value, channels: int) -> ir.Value:
        """A blocked value as Conv would give it."""
        shape = shape_of(value) or ()
        return self.op("ReorderOutput", [value], shape, NCHWC, channels=channels)

    def kernel(
        self,
        w: ir.Value,
        outs: int,
        ins: int,
        taps: Sequence[slice] = (slice(None), slice(None)),
    ) -> ir.Value:
        """Kernels as blocked convolutions take them.

        (outs / block, ins / block, height, width, block of ins, block of outs), or, where a block
        has more numbers than there are ins, (outs / block, ins, height, width, block of outs).

        Args:
            w: kernels of sizes that are known. What they were transposed from, or turned round
                from, is used instead of them, where they were.
            outs: the axis of the channels that the convolution makes.
            ins: the axis of those that it takes.
            taps: the part of the spatial axes, 2 and 3, that is used.
        """
        source, axes = self._source(w)
        turned = self._turned(source, axes)
        if turned is not None:
            source, inner = self._source(turned)
            axes = [inner[axis] for axis in axes]
            taps = [slice(size - 1, None, -1) for size in known_sizes(w)[2:]]
        sizes = known_sizes(source)
        source = self._sliced(source, sizes, {axes[2]: taps[0], axes[3]: taps[1]})
        names = {axes[outs]: "O", axes[ins]: "I", axes[2]: "h", axes[3]: "w"}
        at, block = axes[outs], self.block
        count = {name: sizes[axis] for axis, name in names.items()}
        shape = (count["O"], count["I"], count["h"], count["w"])
        if at < 3:
            # Transposes of single numbers are slow; this one is not, and leaves blocks to move.
            middle = [math.prod(sizes[:at]), sizes[at], math.prod(sizes[at + 1 :]), 1]
            source = self.op("ReorderInput", [self.reshape(source, middle)], middle, NCHWC)
        labels: list[str] = []
        lengths: list[int] = []
        for axis in range(4):
            size = sizes[axis]
            if names[axis] == "I" and size >= block:
                labels += ["I", "i"]
                lengths += [size // block, block]
            else:
                labels.append(names[axis])
                lengths.append(size // block if names[axis] == "O" else size)
        labels, lengths = [*labels, "o"], [*lengths, block]
        wanted = [label for label in ("O", "I", "h", "w", "i", "o") if label in labels]
        moved = self.transpose(
            self.reshape(source, lengths), [labels.index(label) for label in wanted]
        )
        return self.reshape(moved, shape)

    def _source(self, value: ir.Value) -> tuple[ir.Value, list[int]]:
        """What the value is the transpose of, and which of its axes each axis was."""
        maker = value.producer()
        if maker is not None and applies(maker, "Transpose") and maker.inputs[0] is not None:
            return maker.inputs[0], list(maker.attributes["perm"].as_ints())
        return value, list(range(4))

    def _turned(self, value: ir.Value, axes: list[int]) -> ir.Value | None:
        """What the value is, with its two spatial axes (`axes`[2:]) the other way round."""
        maker = value.producer()
        if maker is None or not applies(maker, "Slice") or len(maker.inputs) < 5:
            return None
        known = [None if x is None else self._builder.constant_value(x) for x in maker.inputs[1:]]
        if any(x is None for x in known):
            return None
        starts, ends, along, steps = (x.tolist() for x in known if x is not None)
        whole = all(s == -1 for s in (*starts, *steps)) and all(e < -(2**30) for e in ends)
        same = sorted(a % 4 for a in along) == sorted(axes[2:])
        return maker.inputs[0] if whole and same else None

    def _sliced(self, value: ir.Value, sizes: list[int], taps: dict[int, slice]) -> ir.Value:
        """Those elements along each of the axes; `sizes` becomes the new ones."""
        used = {axis: part for axis, part in taps.items() if part != slice(None)}
        if not used:
            return value
        last = 2**31
        for axis, part in used.items():
            sizes[axis] = len(range(*part.indices(sizes[axis])))
        steps = [part.step or 1 for part in used.values()]
        starts = [part.start for part in used.values()]
        ends = [
            part.stop if part.stop is not None else (last if step > 0 else -last)
            for part, step in zip(used.values(), steps, strict=True)
        ]
        return self.op("Slice", [value, starts, ends, list(used), steps], sizes)

    def conv(self, x: ir.Value, kernel: ir.Value, bias: ir.Value | None, **window: Any) -> ir.Value:
        """A blocked convolution by float32 kernels; its result's spatial sizes are left open."""
        batch = (shape_of(x) or (None,))[0]
        outs, _, *sizes = shape_of(kernel) or ()
        shape = [batch, outs, None, None]
        inputs = [x, kernel] if bias is None else [x, kernel, bias]
        return self.op("Conv", inputs, shape, NCHWC, kernel_shape=sizes, **window)
