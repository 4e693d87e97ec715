"""Rematerialization: blocks whose intermediate results are computed again in the backward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from onnxtape import context, nest
from onnxtape.compiler.dtypes import is_floating
from onnxtape.compiler.errors import Provenance
from onnxtape.custom_gradients import as_tensor, recorded, unrecorded
from onnxtape.engine import B
from onnxtape.tape import GradientTape
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

__all__ = ["recompute"]


def recompute(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, of which the backward pass keeps nothing but the arguments.

    What lies between is computed again when its gradient is needed: less memory, more time. In the
    second run variables read as they did in the first, random numbers are the same, and
    assignments (of running statistics, say) are not made again.

    Args:
        f: takes tensors, in any nested structures, and returns tensors; a layer, for instance. It
            must do the same each time it is called, as everything that is traced.

    Returns:
        A function that gives the same result, with the same gradients.

    Example:
        for block in blocks:
            x = ot.recompute(block)(x)
    """
    name = str(getattr(f, "name", None) or getattr(f, "__name__", type(f).__name__))

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        leaves = [as_tensor(leaf) for leaf in nest.flatten((args, kwargs))]
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

        def call(tensors: Sequence[Tensor]) -> Any:
            given = iter(tensors)
            filled = [next(given) if isinstance(x, Tensor) else x for x in leaves]
            positional, named = nest.pack_like((args, kwargs), filled)
            return f(*positional, **named)

        readings = _Readings()
        with unrecorded(), readings.recording():
            result = call(inputs)
        read = [(variable, t) for variable, given in readings.given.items() for t in given]
        for tape in context.state.tapes:
            for variable, tensor in read:
                tape._read(variable, tensor)

        def rule(_: Any, record: Any, *upstream: Any) -> list[Any]:
            with _recomputed():
                tape = GradientTape(watch_accessed_variables=False)
                # Tensors of their own: the second run must not be told from the first by a tape
                # that watches both.
                fresh = [B.op("Identity", x) for x in record.inputs]
                with readings.replay(fresh[len(inputs) :]), tape:
                    tape.watch([x for x in fresh if is_floating(x.dtype)])
                    outputs = nest.flatten(call(fresh))
                pairs = [(o, g) for o, g in zip(outputs, upstream, strict=True) if g is not None]
                found: list[Any] = tape.gradient(
                    [o for o, _ in pairs], fresh, [g for _, g in pairs]
                )
                return found

        return recorded(name, [*inputs, *(tensor for _, tensor in read)], result, rule)

    return wrapper


class _Readings:
    """What variables gave, in order, while the block ran first; see `context.Readings`."""

    def __init__(self) -> None:
        self.given: dict[Variable, list[Tensor]] = {}
        self.replaying = False
        self._again: dict[Variable, Iterator[Tensor]] = {}

    def read(self, variable: Variable, tensor: Tensor) -> Tensor:
        if self.replaying:
            return next(self._again[variable])
        self.given.setdefault(variable, []).append(tensor)
        return tensor

    @contextmanager
    def recording(self) -> Iterator[None]:
        context.state.readings.append(self)
        try:
            yield
        finally:
            context.state.readings.remove(self)

    @contextmanager
    def replay(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Give these instead, which stand for all of `given` in order."""
        rest = iter(tensors)
        self._again = {
            variable: iter([next(rest) for _ in given]) for variable, given in self.given.items()
        }
        self.replaying = True
        try:
            with self.recording():
                yield
        finally:
            self.replaying = False


@contextmanager
def _recomputed() -> Iterator[None]:
    """Mark the operations inside as computing something again."""
    previous = context.state.origin
    origin = previous or Provenance()
    context.state.origin = replace(origin, recomputed=origin.recomputed + 1)
    try:
        yield
    finally:
        context.state.origin = previous
