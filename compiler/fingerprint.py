"""A digest of a graph: equal for graphs that the passes and ONNX Runtime make the same of."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxtape.compiler.errors import RECOMPUTED
from onnxtape.compiler.notes import SUPERSEDED, composites

#: Notes on nodes that passes go by. Those for people, lines of source say, change more often.
_NOTES = ("onnxtape.phase", RECOMPUTED)


def fingerprint(model: ir.Model) -> str:
    """The SHA-256, in hexadecimal, of a model with named values."""
    digest = hashlib.sha256()
    for part in _graph(model.graph):
        digest.update(part)
        digest.update(b"\0")
    superseded: dict[ir.Value, ir.Value] = model.graph.meta.get(SUPERSEDED, {})
    pairs = [(old.name, new.name) for old, new in superseded.items()]
    noted = [
        (note.op_type, [x.name for x in note.inputs], note.output.name, dict(note.attributes))
        for note in composites(model.graph)
    ]
    digest.update(repr((model.ir_version, dict(model.opset_imports), pairs, noted)).encode())
    return digest.hexdigest()


@functools.cache
def compiler_fingerprint() -> str:
    """A digest of the compiler itself: of the names, sizes and times of its source files."""
    folder = Path(__file__).parent
    found = [(str(p.relative_to(folder)), p.stat()) for p in sorted(folder.rglob("*.py"))]
    text = repr([(name, status.st_size, status.st_mtime_ns) for name, status in found])
    return hashlib.sha256(text.encode()).hexdigest()


def _graph(graph: ir.Graph) -> Iterator[bytes]:
    yield repr([_value(v) for v in graph.inputs]).encode()
    for value in graph.initializers.values():
        yield repr(_value(value)).encode()
        if value.const_value is not None:
            yield from _tensor(value.const_value)
    for node in graph:
        notes = [node.metadata_props.get(key) for key in _NOTES]
        inputs = [None if x is None else x.name for x in node.inputs]
        outputs = [_value(v) for v in node.outputs]
        kind = (node.domain, node.op_type, node.overload, node.name)
        yield repr((kind, inputs, outputs, notes)).encode()
        for name, attribute in node.attributes.items():
            yield name.encode()
            yield from _attribute(attribute)
    yield repr([v.name for v in graph.outputs]).encode()


def _value(value: ir.Value) -> tuple[Any, ...]:
    return value.name, str(value.type), None if value.shape is None else str(value.shape)


def _tensor(tensor: ir.TensorProtocol) -> Iterator[bytes]:
    yield repr((tensor.dtype, tuple(tensor.shape))).encode()
    yield tensor.tobytes()


def _attribute(attribute: ir.Attr) -> Iterator[bytes]:
    if attribute.type == ir.AttributeType.GRAPH:
        yield from _graph(attribute.as_graph())
    elif attribute.type == ir.AttributeType.TENSOR:
        yield from _tensor(attribute.as_tensor())
    else:
        yield repr((attribute.type, attribute.value)).encode()
