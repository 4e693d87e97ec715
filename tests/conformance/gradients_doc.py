"""Writes docs/gradients.md from the gradient table: `python -m tests.conformance.gradients_doc`.

The registry says what is done with each operator, ONNX's schemas since which opset it exists, the
table of cases in `tests/compiler/cases` by which inputs it is differentiated in tests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import onnx

from onnxtape.compiler import registry
from onnxtape.compiler.autodiff import RULES_OPSET
from onnxtape.compiler.sequences import operators_seen_through
from tests.compiler.cases import CASES
from tests.conformance.left_out import entries
from tests.conformance.node_cases import NEWEST_OPSET

FILE = Path(__file__).parents[2] / "docs" / "gradients.md"

#: Operators with subgraphs, whose cases are in tests/compiler/test_control_flow.py.
SUBGRAPHS = {
    "If": "what the branches take from outside",
    "Loop": "initial values, what the body takes from outside",
    "Scan": "initial values, scanned tensors, what the body takes from outside",
}

INTRODUCTION = f"""\
# Gradients

What `GradientTape` and `compiler.differentiate` do with each operator of ONNX's default domain,
from opset {RULES_OPSET} to {NEWEST_OPSET}. `python -m tests.conformance.gradients_doc` writes this
file from the gradient table (`compiler/registry.py`) and from the cases that test it.

Rules are written by hand. Expansions write the operator with simpler ones, which are then
differentiated. Both emit standard operators that have rules themselves, so gradients of gradients
work. A gradient that has no right answer is refused with a reason: none is silently zero.
"""

CASES_NOTE = """\
*By* names the inputs whose gradients are compared with central differences in float64
(`tests/compiler/cases`), with static and with symbolic shapes, and on ONNX Runtime in float32. What
is not named is an index, a size, a condition or a type, which carries no derivative, or it is
refused. *Opset* is the first one, from {rules_opset}, that has the operator.
"""

SEQUENCES = """\
Sequences and optionals are seen through: {operators}. The gradient goes to the tensors in them,
where contents and positions are known before the step runs; what is known only then is refused.
"""

NODE_TESTS = """\
## ONNX's own tests

The gradients of ONNX's backend tests of single operators, and of the function bodies in them, are
compared with central differences too (`tests/conformance`; `python -m tests.conformance` prints the
tally). These are left out:
"""


def operators() -> list[str]:
    """The operators of the default domain up to the newest opset, those taken away included."""
    history = onnx.defs.get_all_schemas_with_history()
    return sorted({s.name for s in history if s.domain == "" and s.since_version <= NEWEST_OPSET})


def unanswered() -> list[str]:
    """Operators of which the table says nothing."""
    answered = {*registry.differentiable_operators(), *registry.zero_gradients()}
    return [op for op in operators() if op not in answered | registry.refusals().keys()]


def text() -> str:
    """The file's content."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    rules = [op for op in operators() if registry.lookup(op) is not None]
    seen_through = operators_seen_through()
    zero = registry.zero_gradients()
    refused = {op: why for op, why in registry.refusals().items() if op not in seen_through}
    yield INTRODUCTION
    yield f"## {len(rules) + len(seen_through)} operators with a gradient\n"
    yield CASES_NOTE.format(rules_opset=RULES_OPSET)
    yield "| operator | opset | by | how |"
    yield "|---|---|---|---|"
    for op in rules:
        entry = registry.lookup(op)
        how = "expansion" if entry is not None and entry.expands else "rule"
        yield f"| {op} | {_first_opset(op)} | {_covered(op)} | {how} |"
    yield f"\n{SEQUENCES.format(operators=', '.join(seen_through))}"
    yield f"## {len(zero)} operators without a derivative\n"
    yield "Their derivatives are zero wherever they exist, or they have none to pass on.\n"
    yield from _by_reason(zero)
    yield f"\n## {len(refused)} operators that are refused\n"
    yield from _by_reason(refused)
    yield "\n" + NODE_TESTS
    yield "| tests | input | because |"
    yield "|---|---|---|"
    for left_out in entries():
        names = ", ".join(f"`{pattern}`" for pattern in left_out.cases)
        names += "" if left_out.expanded else " (not the function bodies)"
        yield f"| {names} | {left_out.input or ''} | {left_out.because} |"
    yield ""


def _by_reason(reasons: dict[str, str]) -> Iterator[str]:
    found = defaultdict(list)
    for op, reason in sorted(reasons.items()):
        found[reason].append(op)
    yield "| operators | because |"
    yield "|---|---|"
    for reason, ops in sorted(found.items(), key=lambda item: item[1]):
        yield f"| {', '.join(ops)} | {reason} |"


def _first_opset(op: str) -> int:
    versions = [
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == op and schema.domain == ""
    ]
    return max(RULES_OPSET, min(versions))


def _covered(op: str) -> str:
    """The inputs by which some case differentiates the operator."""
    if op in SUBGRAPHS:
        return SUBGRAPHS[op]
    formals = onnx.defs.get_schema(op, NEWEST_OPSET, "").inputs
    indices = {i for case in CASES if case.op == op for i in case.sources}
    names = {formals[min(i, len(formals) - 1)].name: None for i in sorted(indices)}
    return ", ".join(names)


if __name__ == "__main__":
    FILE.write_text(text())
