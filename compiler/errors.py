"""What the compiler says when it refuses.

Every error carries, where it is known, the place in the user's code that asked for the operator
(`Provenance`), so that the message can end with `at train.py:12 in layer 'dense'`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Phase = Literal["forward", "backward", "update"]

#: The metadata key of nodes that compute something again rather than keep it.
RECOMPUTED = "onnxtape.recomputed"

#: The metadata key of what it means, to the user, when a node's indices are out of range.
_OUT_OF_RANGE = "onnxtape.out_of_range"
_INDEXING = frozenset(
    ("Gather", "GatherElements", "GatherND", "OneHot", "ScatterElements", "ScatterND")
)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a node comes from: the user's file and line, the layer's path, and its phase.

    `recomputed` counts how many times over the node computes again, on purpose, what another did.
    `out_of_range` says what it means when indices are: a target is no class, say.
    """

    file: str = ""
    line: int = 0
    layer: str = ""
    phase: Phase = "forward"
    recomputed: int = 0
    out_of_range: str = ""

    def __str__(self) -> str:
        at = f"at {self.file}:{self.line}" if self.file else ""
        in_layer = f"in layer '{self.layer}'" if self.layer else ""
        return " ".join(part for part in (at, in_layer) if part)

    def to_metadata(self) -> dict[str, str]:
        """The node's `metadata_props` (keys `onnxtape.source`, `onnxtape.layer`, ...)."""
        props: dict[str, str] = {"onnxtape.phase": self.phase}
        if self.file:
            props["onnxtape.source"] = f"{self.file}:{self.line}"
        if self.layer:
            props["onnxtape.layer"] = self.layer
        if self.recomputed:
            props[RECOMPUTED] = str(self.recomputed)
        if self.out_of_range:
            props[_OUT_OF_RANGE] = self.out_of_range
        return props

    @classmethod
    def from_metadata(cls, props: Mapping[str, str]) -> Provenance:
        """The inverse of `to_metadata`; unknown or missing keys give the defaults."""
        file, _, line = props.get("onnxtape.source", "").rpartition(":")
        phase = props.get("onnxtape.phase", "forward")
        return cls(
            file=file,
            line=int(line) if line.isdigit() else 0,
            layer=props.get("onnxtape.layer", ""),
            phase=phase if phase in ("backward", "update") else "forward",  # type: ignore[arg-type]
            recomputed=int(props.get(RECOMPUTED, 0)),
            out_of_range=props.get(_OUT_OF_RANGE, ""),
        )

    def with_phase(self, phase: Phase) -> Provenance:
        return self if self.phase == phase else replace(self, phase=phase)


def meaning_of_failure(op_type: str, props: Mapping[str, str]) -> str:
    """What it means when a node with these `metadata_props` fails, with the user's place; empty
    where nobody has said. Operators without indices fail for other reasons than those noted."""
    place = Provenance.from_metadata(props)
    return located(place.out_of_range, place) if op_type in _INDEXING and place.out_of_range else ""


def located(message: str, provenance: Provenance | None) -> str:
    """`message` with the user's place appended, when there is one."""
    place = str(provenance) if provenance is not None else ""
    return f"{message}\n  {place}" if place else message


class CompilerError(Exception):
    """Base of all errors of the compiler."""


class ShapeError(CompilerError, ValueError):
    """The shapes of an operator's inputs do not fit together."""


class UnknownRankError(ShapeError):
    """Something needs a tensor whose rank is known, and it is known only at run time."""


class DtypeError(CompilerError, TypeError):
    """An operator does not take these dtypes, or takes only equal ones."""


class GradientError(CompilerError, NotImplementedError):
    """A gradient was asked for through an operator that has no rule, or whose rule refuses."""


class VerificationError(CompilerError):
    """A graph broke one of the invariants that every pass must keep."""


def describe_operands(operands: Mapping[str, Any] | list[str]) -> str:
    """One operand per line, for shape and dtype errors."""
    if isinstance(operands, list):
        return "".join(f"\n  input {i}: {text}" for i, text in enumerate(operands))
    return "".join(f"\n  {name}: {text}" for name, text in operands.items())
