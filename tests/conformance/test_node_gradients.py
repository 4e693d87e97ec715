"""The gradients of ONNX's own backend tests agree with central differences.

`python -m tests.conformance` prints what `node_tests.judge` says of every test.
"""

from __future__ import annotations

import string

import pytest

from tests.conformance.left_out import entries, inputs_left_out, left_out
from tests.conformance.node_cases import NodeCase, node_cases
from tests.conformance.node_tests import Status, judge


def all_cases() -> list[NodeCase]:
    return [case for cases in node_cases().values() for case in cases]


def complaint(case: NodeCase) -> str:
    """What is wrong about the test, or about its entry in left_out.toml; "" if nothing."""
    verdict = judge(case)
    listed, inputs = left_out(case), inputs_left_out(case)
    if verdict.status is not Status.AGREES:
        return "" if listed is not None else f"{verdict.status.value}: {verdict.detail}"
    if listed is not None:
        return f"agrees, but left_out.toml lists it ({listed.because})"
    if stale := sorted(inputs.keys() - verdict.refused.keys()):
        return f"has a gradient by {', '.join(stale)}, but left_out.toml lists the input"
    unlisted = {k: v for k, v in verdict.refused.items() if k not in inputs}
    return "; ".join(f"refuses '{name}': {reason}" for name, reason in unlisted.items())


@pytest.mark.parametrize("initial", string.ascii_uppercase)
def test_operators(initial: str) -> None:
    cases = [case for case in all_cases() if case.operator.startswith(initial)]
    found = {case.name: complaint(case) for case in cases}
    wrong = [f"{name}: {text}" for name, text in found.items() if text]
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_pattern_leaves_something_out() -> None:
    unused = [
        pattern
        for entry in entries()
        for pattern in entry.cases
        if not any(entry.matches(pattern, case) for case in all_cases())
    ]
    assert not unused


def test_enough_is_compared() -> None:
    """Every test that is not left out agrees, or `test_operators` fails."""
    compared = [case for case in all_cases() if left_out(case) is None]
    operators = {case.operator for case in compared if not case.expanded}
    assert len(compared) >= 1250
    assert len(operators) >= 130
