"""The gradient table: operator -> rule.

A rule is a function `rule(b, node, *grads)`:

- `b` is the `Builder` to write with;
- `node` is the `Record` of the forward operator, whose inputs and outputs may be used freely;
- `grads` holds one gradient per output, of that output's shape and dtype; for operators with
  several outputs an entry is None where no gradient arrived (never all of them).

It returns one entry per input, as many as it covers: a value, a function without arguments that
makes it (called only when somebody wants that gradient), or None where the derivative is zero
everywhere. It refuses by raising `Refusal`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Rule = Callable[..., Sequence[Any]]


class Refusal(Exception):
    """Raised by a rule that has no right answer for this node; the text says why."""


@dataclass(frozen=True, slots=True)
class Gradient:
    """A table entry.

    Attributes:
        broadcasts: the driver sums input gradients to their inputs' shapes.
        expands: the rule differentiates an expansion; between node and gradients it takes one bool
            per input, whether its gradient is wanted.
    """

    rule: Rule
    broadcasts: bool = False
    expands: bool = False


_TABLE: dict[str, Gradient] = {}
_ZERO: dict[str, str] = {}
_REFUSED: dict[str, str] = {}


def _claim(op_types: Sequence[str]) -> None:
    for op_type in op_types:
        if op_type in _TABLE or op_type in _ZERO or op_type in _REFUSED:
            raise ValueError(f"{op_type} has a gradient rule already")


def gradient(*op_types: str, broadcasts: bool = False) -> Callable[[Rule], Rule]:
    """Register the decorated rule for these operators of the default domain."""

    def register(rule: Rule) -> Rule:
        _claim(op_types)
        _TABLE.update(dict.fromkeys(op_types, Gradient(rule, broadcasts)))
        return rule

    return register


def register_expansion(op_types: Sequence[str], rule: Rule) -> None:
    """Register a rule that differentiates an expansion; see `compiler.expansion`."""
    _claim(op_types)
    _TABLE.update(dict.fromkeys(op_types, Gradient(rule, expands=True)))


def zero_gradient(*op_types: str, because: str) -> None:
    """Declare that these operators' derivatives are zero wherever they exist."""
    _claim(op_types)
    _ZERO.update(dict.fromkeys(op_types, because))


def refuse(*op_types: str, because: str) -> None:
    """Declare that a gradient through these operators has no right answer; users see the reason."""
    _claim(op_types)
    _REFUSED.update(dict.fromkeys(op_types, because))


def lookup(op_type: str) -> Gradient | None:
    """The operator's entry, or None when it has no rule."""
    _load()
    return _TABLE.get(op_type)


def has_zero_gradient(op_type: str) -> bool:
    """Whether the operator carries no derivative by declaration."""
    _load()
    return op_type in _ZERO


def zero_gradients() -> dict[str, str]:
    """The operators whose derivatives are zero, with the reason."""
    _load()
    return dict(_ZERO)


def refusals() -> dict[str, str]:
    """The operators that no gradient can be taken through, with the reason."""
    _load()
    return dict(_REFUSED)


def differentiable_operators() -> tuple[str, ...]:
    """The operators that have a rule, sorted."""
    _load()
    return tuple(sorted(_TABLE))


def _load() -> None:
    # The families register themselves on import; they import this module, so not at its top.
    import onnxtape.compiler.gradients  # noqa: F401
