"""The base of all metrics: state in variables, which compiled steps read and assign."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from onnxtape import context, initializers, nest, ops
from onnxtape.constructing import described
from onnxtape.lookup import Configurable
from onnxtape.naming import auto_name, to_snake_case
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Metric(Configurable):
    """A metric: subclasses write `update_state` and `result` over variables from `add_variable`.

    Variables and metrics that are assigned to attributes, in lists and dicts too, belong to it.

    Args:
        dtype: of the state and of the computation, by default float32.
        name: by default the class's name in snake case, counted.
    """

    #: Whether larger ("up") or smaller ("down") values are better, for callbacks that watch it.
    _direction: Literal["up", "down"] | None = None

    def __init__(self, dtype: npt.DTypeLike | None = None, name: str | None = None) -> None:
        self.name = name or auto_name(to_snake_case(type(self).__name__))
        self.dtype = np.dtype(dtype or "float32").name
        self._variables: list[Variable] = []

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # What goes wrong in an update names the metric.
        if "update_state" in vars(cls):
            cls.update_state = _named(vars(cls)["update_state"])  # type: ignore[method-assign]

    def add_weight(
        self,
        shape: tuple[int, ...] = (),
        initializer: Any = "zeros",
        dtype: npt.DTypeLike | None = None,
        name: str | None = None,
    ) -> Variable:
        """`add_variable` under Keras's other name for it."""
        return self.add_variable(shape, initializer, dtype, name)

    def add_variable(
        self,
        shape: tuple[int, ...],
        initializer: Any = "zeros",
        dtype: npt.DTypeLike | None = None,
        name: str | None = None,
    ) -> Variable:
        """Create a state variable, which `reset_state` sets back to its initial value."""
        self._check_initialized()
        make = initializers.get(initializer)
        chosen = dtype or self.dtype
        variable = Variable(
            lambda: make(shape, dtype=chosen), False, name or "variable", chosen, role="metric"
        )
        variable.path = f"{self.name}/{variable.name}"
        variable.initializer = make
        self._variables.append(variable)
        return variable

    @property
    def variables(self) -> list[Variable]:
        """The metric's state, and that of the metrics it holds."""
        found = [*self._variables, *self._given()]
        return found + [variable for metric in self._metrics() for variable in metric.variables]

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Take a batch into account."""
        raise NotImplementedError(f"{type(self).__name__} has no update_state method")

    def result(self) -> Any:
        """The metric over all batches since the last reset: a scalar, or a dict of scalars."""
        raise NotImplementedError(f"{type(self).__name__} has no result method")

    def reset_state(self) -> None:
        """Forget all batches."""
        for variable in [*self._variables, *self._given()]:
            make = variable.initializer or initializers.Zeros()
            variable.assign(make(variable.shape, dtype=variable.dtype))
        for metric in self._metrics():
            metric.reset_state()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`update_state`, then `result`."""
        self.update_state(*args, **kwargs)
        return self.result()

    def __repr__(self) -> str:
        return described(type(self).__name__, {"name": self.name})

    def _parts(self) -> Iterator[Any]:
        for name, value in vars(self).items():
            if name != "_variables":
                yield from nest.flatten(value)

    def _given(self) -> list[Variable]:
        """Variables among the attributes that `add_variable` did not make, each once."""
        known = {id(variable) for variable in self._variables}
        given = {id(part): part for part in self._parts() if isinstance(part, Variable)}
        return [variable for key, variable in given.items() if key not in known]

    def _metrics(self) -> list[Metric]:
        """The metrics among the attributes, each once."""
        return list({id(part): part for part in self._parts() if isinstance(part, Metric)}.values())

    def _check_initialized(self) -> None:
        if "_variables" not in vars(self):
            name = type(self).__name__
            raise RuntimeError(f"{name}.__init__ has to call super().__init__() first")


def _named(update: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(update)
    def named(self: Metric, *args: Any, **kwargs: Any) -> None:
        self._check_initialized()
        if context.state.layers[-1:] == [self.name]:  # A subclass's update calls its base's.
            update(self, *args, **kwargs)
        else:
            with context.in_layer(self.name):
                update(self, *args, **kwargs)

    return named


def not_updated(metric: Metric) -> ValueError:
    """What a metric raises whose state takes its shape from the first batch."""
    return ValueError(
        f"metric '{metric.name}' has no result yet: its state takes its shape from the first "
        "batch; call update_state before result"
    )


def scalar_if_one(values: Tensor, count: int) -> Tensor:
    """The only element of a vector of length 1; other vectors as they are."""
    return ops.squeeze(values, 0) if count == 1 else values
