"""A node on what a part of the batch has, and the registry of rules for it.

A rule takes a node whose inputs are replicated, partial or shards, and says what its outputs then
are when every part runs the node on what it has; None where they are no such thing. A node without
a rule is one for the time after the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import applies
from onnxtape.compiler.passes.blocked.kernel_gradients import DOMAIN as MARKED
from onnxtape.compiler.sharding.placement import Placement, Shard, Spread

REPLICATED, PARTIAL = Spread.REPLICATED, Spread.PARTIAL


@dataclass
class Local:
    """A node as it is placed, and what a part has to change about it.

    Attributes:
        placements: of its inputs; None where one is omitted.
        batch: the number of samples.
        parts: how many parts they are divided into.
        cuts: replicated inputs of which a part takes its samples' elements.
        constants: inputs that a part replaces.
        averaged: whether a part's result counts as its share of a mean.
    """

    node: ir.Node
    placements: Sequence[Placement | None]
    batch: int
    parts: int
    cuts: dict[int, Shard] = field(default_factory=dict)
    constants: dict[int, npt.NDArray[Any]] = field(default_factory=dict)
    averaged: bool = False

    def shape(self, index: int) -> tuple[int, ...]:
        """The whole shape of an input."""
        return _static(self.node.inputs[index])

    def out(self, index: int = 0) -> tuple[int, ...]:
        """The whole shape of an output."""
        return _static(self.node.outputs[index])

    def shards(self) -> list[tuple[int, Shard]]:
        """The inputs that are shards."""
        return [(i, p) for i, p in enumerate(self.placements) if isinstance(p, Shard)]

    def shard(self, index: int = 0) -> Shard | None:
        """The shard that an input is; None if it is none."""
        found = self.placements[index]
        return found if isinstance(found, Shard) else None

    def is_replicated(self, *indices: int) -> bool:
        """Whether these inputs are replicated or omitted."""
        return all(
            i >= len(self.placements) or self.placements[i] in (None, REPLICATED) for i in indices
        )

    def local(self, index: int, shard: Shard) -> bool:
        """Whether a part has these elements of an input, or can cut them out of all."""
        placed = self.placements[index]
        if placed is REPLICATED:
            self.cuts[index] = shard
            return True
        return placed == shard

    def attribute(self, name: str, default: Any) -> Any:
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def constant(self, index: int) -> npt.NDArray[Any] | None:
        """The value of an input, if it is a constant."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
        return None if tensor is None else tensor.numpy()

    def axis(self, name: str, default: int, rank: int) -> int:
        """An attribute that is an axis, counted from the front."""
        return int(self.attribute(name, default)) % rank


def _static(value: ir.Value | None) -> tuple[int, ...]:
    shape = shape_of(value)
    assert shape is not None
    return tuple(int(size) for size in shape if isinstance(size, int))


#: Operators that take partial sums, and what they give of these is a partial sum again.
ADDITIVE = ("Add", "Sub", "Sum")
VIEWS_OF_SUMS = ("Reshape", "Squeeze", "Transpose", "Unsqueeze")

Rule = Callable[[Local], "list[Placement] | None"]
_RULES: dict[str, Rule] = {}


def placed(n: Local) -> list[Placement] | None:
    """The placements of a node's outputs; None where no rule tells."""
    known = applies(n.node, *_RULES) or n.node.domain == MARKED
    if not known:
        return None
    if n.node.op_type in VIEWS_OF_SUMS and n.placements[0] is PARTIAL:
        return [PARTIAL]
    return _RULES[n.node.op_type](n) if n.shards() or n.node.op_type in ADDITIVE else None


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these operators."""

    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(op_types, function))
        return function

    return register


def only(shards: set[Shard]) -> Shard | None:
    """The shard that they all are; None if they differ."""
    return next(iter(shards)) if len(shards) == 1 else None
