"""One applied operator, as the differentiation driver sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from onnxtape.compiler.errors import Provenance

V = TypeVar("V")


@dataclass(slots=True, eq=False)
class Record(Generic[V]):
    """An operator applied to values: a node of a graph, or one eager operation on a tape.

    `V` is whatever the builder in use calls a value: `onnx_ir.Value` in a graph, `onnxtape.Tensor`
    on a tape. Omitted optional inputs are None. Attribute values are plain Python and NumPy.
    Something else than an operator may be recorded too, with a gradient `rule` of its own.
    """

    op_type: str
    inputs: Sequence[V | None]
    outputs: Sequence[V]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    name: str = ""
    provenance: Provenance | None = None
    rule: Callable[..., Sequence[Any]] | None = None

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def input(self, index: int) -> V | None:
        """Input `index`, None where it is omitted or the node has fewer inputs."""
        return self.inputs[index] if index < len(self.inputs) else None

    def required(self, index: int) -> V:
        """Input `index`, which the operator's schema requires."""
        value = self.input(index)
        if value is None:
            raise ValueError(f"{self.op_type}: required input {index} is missing")
        return value

    @property
    def title(self) -> str:
        """The operator with its domain, and the node's name when it has one."""
        op = f"{self.domain}::{self.op_type}" if self.domain else self.op_type
        return f"{op} (node '{self.name}')" if self.name else op
