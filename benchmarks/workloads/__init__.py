"""The training steps that are compared, one module each.

A module defines ``WORKLOAD``: the problem (weights and batches) and, for each framework, a function
that builds the model and returns a closure. One call of the closure takes the next batch, trains
one step and returns the loss as a Python float. A framework is imported inside its own function.
"""

import importlib
import itertools
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Step = Callable[[], float]


@dataclass(frozen=True)
class Problem:
    """What every framework starts from: weights in Keras's order and layout, and batches."""

    weights: list[NDArray[np.float32]]
    batches: Sequence[tuple[NDArray[Any], ...]]

    def endless(self, dtype: DTypeLike) -> Iterator[tuple[NDArray[Any], ...]]:
        """The batches again and again, integers in the dtype `dtype`, converted beforehand."""

        def converted(array: NDArray[Any]) -> NDArray[Any]:
            return array.astype(dtype) if array.dtype.kind == "i" else array

        return itertools.cycle([tuple(map(converted, batch)) for batch in self.batches])


@dataclass(frozen=True)
class Workload:
    """One training step, in every framework that has it."""

    title: str
    steps: int
    """Timed steps per round."""
    problem: Callable[[], Problem]
    builders: Mapping[str, Callable[[Problem], Step]]
    """The build function of each framework, under its name in `benchmarks.peers.PEERS`."""


def names() -> list[str]:
    """The names of all workloads."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Workload:
    """The workload in the module called `name`."""
    workload = importlib.import_module(f"{__name__}.{name}").WORKLOAD
    assert isinstance(workload, Workload)
    return workload
