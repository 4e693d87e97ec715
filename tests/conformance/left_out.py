"""The tests that are left out, with the reasons: `left_out.toml`."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tests.conformance.node_cases import NodeCase

FILE = Path(__file__).with_name("left_out.toml")


@dataclass(frozen=True)
class Entry:
    """Why some tests, or one input of theirs, are left out.

    Attributes:
        cases: patterns of names.
        input: the input that no gradient is taken by; None: the tests are left out altogether.
        expanded: whether tests of function bodies are meant too.
    """

    cases: Sequence[str]
    because: str
    input: str | None = None
    expanded: bool = True

    def covers(self, case: NodeCase) -> bool:
        return any(self.matches(pattern, case) for pattern in self.cases)

    def matches(self, pattern: str, case: NodeCase) -> bool:
        return fnmatchcase(case.name, pattern) and (self.expanded or not case.expanded)


@functools.cache
def entries() -> tuple[Entry, ...]:
    """The file's entries, in its order."""
    return tuple(Entry(**entry) for entry in tomllib.loads(FILE.read_text())["left_out"])


def left_out(case: NodeCase) -> Entry | None:
    """The entry that leaves the test out."""
    return next((e for e in entries() if e.input is None and e.covers(case)), None)


def inputs_left_out(case: NodeCase) -> dict[str, Entry]:
    """The inputs of the test that no gradient is taken by."""
    return {e.input: e for e in entries() if e.input is not None and e.covers(case)}
