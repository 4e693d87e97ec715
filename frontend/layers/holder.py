"""What layers hold: weights, other layers, metrics and random streams, and how they are listed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt

from onnxtape import nest
from onnxtape.engine import convert_to_tensor
from onnxtape.errors import VariableError
from onnxtape.random import SeedGenerator
from onnxtape.trainable import TrainableFlag
from onnxtape.variable import Variable


class Holder:
    """The part of a layer that keeps track of what is assigned to its attributes."""

    name: str
    built: bool
    _trainable = TrainableFlag()
    #: Attributes that hold layers, variables and the like.
    _tracked: dict[str, Any]

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("__") and "_tracked" not in self.__dict__:
            object.__setattr__(self, "_tracked", {})
        if isinstance(value, (Holder, Variable, list, tuple, dict)) or _has_state(value):
            self._tracked[name] = value
        elif name in self.__dict__.get("_tracked", ()):
            del self._tracked[name]
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        self.__dict__.get("_tracked", {}).pop(name, None)
        object.__delattr__(self, name)

    def _parts(self) -> Iterator[Any]:
        """The variables and layers that this layer holds directly, in the order of creation."""
        for value in self.__dict__.get("_tracked", {}).values():
            for part in nest.flatten(value):
                if isinstance(part, (Holder, Variable)):
                    yield part
                elif isinstance(part, SeedGenerator):
                    yield part.state

    def _flatten_layers(self) -> Iterator[Any]:
        """This layer and all below it, each once."""
        seen: set[int] = set()
        pending: list[Holder] = [self]
        while pending:
            layer = pending.pop(0)
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            yield layer
            pending[:0] = [part for part in layer._parts() if isinstance(part, Holder)]

    @property
    def variables(self) -> list[Variable]:
        """All variables of the layer and those below it, each once; those of metrics apart, see
        `metrics_variables`."""
        found: dict[int, Variable] = {}
        for layer in self._flatten_layers():
            own = [part for part in layer._parts() if isinstance(part, Variable)]
            own = [*layer.__dict__.get("_own_weights", ()), *own]
            # As in Keras: a layer's parameters first, whether they are frozen or not.
            for variable in sorted(own, key=lambda v: v.role != "parameter"):
                found.setdefault(id(variable), variable)
        return list(found.values())

    @property
    def weights(self) -> list[Variable]:
        """The variables without what generators and stateful layers carry on."""
        return [v for v in self.variables if v.role in ("parameter", "buffer") and v.is_weight]

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self._flatten_layers():
            layer._trainable = bool(value)

    @property
    def trainable_variables(self) -> list[Variable]:
        """The variables that training changes."""
        frozen = {
            id(variable)
            for layer in self._flatten_layers()
            if not layer._trainable
            for variable in layer.variables
        }
        return [v for v in self.variables if v.trainable and id(v) not in frozen]

    @property
    def trainable_weights(self) -> list[Variable]:
        return self.trainable_variables

    @property
    def non_trainable_variables(self) -> list[Variable]:
        trainable = set(map(id, self.trainable_variables))
        return [v for v in self.variables if id(v) not in trainable]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        trainable = set(map(id, self.trainable_variables))
        return [v for v in self.weights if id(v) not in trainable]

    def _held_metrics(self) -> list[Any]:
        """The metrics that this layer and those below it have as attributes."""
        return [
            part
            for layer in self._flatten_layers()
            for value in layer.__dict__.get("_tracked", {}).values()
            for part in nest.flatten(value)
            if _is_metric(part)
        ]

    @property
    def metrics(self) -> list[Any]:
        """The metrics that this layer and those below it hold."""
        return self._held_metrics()

    @property
    def metrics_variables(self) -> list[Variable]:
        """The state of `metrics`."""
        return [variable for metric in self.metrics for variable in metric.variables]

    def count_params(self) -> int:
        """The number of elements of all weights."""
        if not self.built:
            raise ValueError(
                f"layer '{self.name}' has no weights yet: call it on data, or build(input_shape)"
            )
        return sum(v.size for v in self.weights)

    def get_weights(self) -> list[npt.NDArray[Any]]:
        """Copies of all weights, in the order of `weights`."""
        return [v.numpy() for v in self.weights]

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Assign all weights.

        Raises:
            VariableError: another number of weights, or another shape. Nothing is assigned then.
        """
        variables = self.weights
        if len(weights) != len(variables):
            raise VariableError(
                f"layer '{self.name}' has {len(variables)} weights "
                f"({', '.join(v.path for v in variables) or 'not built yet'}), "
                f"but {len(weights)} were given"
            )
        tensors = [convert_to_tensor(w) for w in weights]
        for variable, tensor in zip(variables, tensors, strict=True):
            variable._check_shape(tensor)
        for variable, tensor in zip(variables, tensors, strict=True):
            variable.assign(tensor)


def _has_state(value: Any) -> bool:
    """Whether this is a random stream or a metric."""
    return isinstance(value, SeedGenerator) or _is_metric(value)


def _is_metric(value: Any) -> bool:
    return hasattr(type(value), "update_state")
