"""Where operations on symbolic tensors go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from onnxtape import context
from onnxtape.tensor import Tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxtape.compiler.graph_builder import GraphBuilder
    from onnxtape.tape import GradientTape
    from onnxtape.variable import Variable


class SymbolicContext(ABC):
    """A trace, a subgraph in one, or the functional API's scratch space.

    Attributes:
        builder: makes the nodes.
        none_dims: whether unknown dimensions are shown as None (as Keras does), not as
            `SymbolicDim`.
        parent: the context around, where this is that of a branch or of a loop's body.
        hidden_tapes: the tapes that record around a branch or body, and do not see what happens
            inside.
    """

    builder: GraphBuilder
    none_dims: bool = False
    parent: SymbolicContext | None = None
    hidden_tapes: Sequence[GradientTape] = ()

    def emit(
        self,
        op_type: str,
        inputs: Sequence[Tensor | None],
        attributes: Mapping[str, Any],
        outputs: int,
    ) -> tuple[Tensor, ...]:
        self.builder.provenance = context.provenance()
        symbols = [None if x is None else self.symbol(x) for x in inputs]
        results = self.builder.emit(op_type, symbols, attributes, outputs)
        return tuple([Tensor._from_symbol(r, self) for r in results])

    def constant(self, array: npt.NDArray[Any]) -> Tensor:
        return Tensor._from_symbol(self.builder.constant(array), self)

    @abstractmethod
    def symbol(self, tensor: Tensor) -> ir.Value:
        """The graph's value for a tensor: its own, or one from elsewhere."""

    @abstractmethod
    def read(self, variable: Variable) -> Tensor:
        """The variable's value at this point."""

    @abstractmethod
    def assign(self, variable: Variable, value: Tensor) -> None:
        """Make `value` what `read` gives from here on."""

    @abstractmethod
    def created(self, variable: Variable) -> None:
        """Hear of a new variable; raises where none may be made."""

    @abstractmethod
    def stopped(self, tensor: Tensor) -> Tensor:
        """Another tensor of the same value, through which no gradient flows."""
