"""Prints how far the gradients of ONNX's backend tests agree.

    python -m tests.conformance [OP ...]

Args:
    OP: only the tests of these operators.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.conformance.left_out import left_out
from tests.conformance.node_cases import node_cases
from tests.conformance.node_tests import Status, judge


def main(operators: Sequence[str]) -> int:
    """Judge the tests and print the tally; 1 if any is wrong, or refused without being listed."""
    start = time.perf_counter()
    tally: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    agreeing = set()
    for operator, cases in sorted(node_cases().items()):
        if operators and operator not in operators:
            continue
        for case in cases:
            verdict, listed = judge(case), left_out(case)
            agrees = verdict.status is Status.AGREES
            outcome = verdict.status.value if agrees or listed is None else "left out"
            tally[outcome] += 1
            if not agrees:
                reason = verdict.detail if listed is None else listed.because
                print(f"{outcome:9}{case.name}: {reason}")
                continue
            if not case.expanded:
                agreeing.add(operator)
            notes["graphs of function bodies"] += case.expanded
            notes["at data that was moved to where the function is smooth"] += verdict.moved
            notes["with integer inputs as constants"] += verdict.constants
            notes["without the gradients by some inputs, which are refused"] += bool(
                verdict.refused
            )
            notes[f"against differences in {verdict.precision}"] += 1
    print()
    print(f"{len(agreeing)} operators and {tally['agrees']} tests agree; of these tests")
    print(*(f"  {count:5} {note}" for note, count in sorted(notes.items()) if count), sep="\n")
    rest = ("left out", "refused", "unfit", "wrong")
    print(", ".join(f"{tally[outcome]} {outcome}" for outcome in rest), end="; ")
    print(f"{time.perf_counter() - start:.0f} s")
    return 1 if tally["wrong"] or tally["refused"] or tally["unfit"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
