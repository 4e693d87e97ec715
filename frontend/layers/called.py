"""What layers were called on: shapes and dtypes, for building them and for graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxtape import nest
from onnxtape.engine import B
from onnxtape.signature import TensorSpec
from onnxtape.tensor import Tensor


class Called:
    """The part of a layer that remembers its calls."""

    #: Whether each call is noted, not only the one that builds the layer.
    _notes_every_call = False
    #: Arguments and named arguments, with a `TensorSpec` for each tensor.
    _call_specs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    #: Nested as the outputs are; of the first call, or the last one in the functional API.
    _output_shape: Any = None

    def _note_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Remember what the layer is called on; returns its first argument."""
        named = {name: x for name, x in kwargs.items() if name != "training"}
        given = nest.map_structure(_spec, (args, named))
        known = self._call_specs
        # Not by attribute, which a layer looks through for what it holds.
        self.__dict__["_call_specs"] = given if known is None else _covering(known, given)
        return _first(args, kwargs)

    def _note_outputs(self, shapes: Any) -> None:
        self.__dict__["_output_shape"] = shapes

    @property
    def _input_specs(self) -> Any:
        """A `TensorSpec` per tensor in the first argument; None before the first call."""
        return None if self._call_specs is None else _first(*self._call_specs)


def _first(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else next(iter(kwargs.values()), None)


def _spec(x: Any) -> Any:
    """An input's dtype and shape, for any batch size."""
    shape = static_shape(x)
    if shape is None:
        return None if isinstance(x, Tensor) else x
    return TensorSpec((None, *shape[1:]) if shape else (), x.dtype)


def _covering(known: Any, given: Any) -> Any:
    """Specs of what calls were given: dtypes and names as now, sizes that have varied free."""
    if nest.structure(known) != nest.structure(given):
        return given

    def both(old: Any, new: Any) -> Any:
        if not isinstance(old, TensorSpec) or not isinstance(new, TensorSpec):
            return new
        if len(old.shape) != len(new.shape):
            return new
        sizes = [a if a == b else None for a, b in zip(old.shape, new.shape, strict=True)]
        return TensorSpec(sizes, new.dtype, old.name)

    pairs = zip(nest.flatten(known), nest.flatten(given), strict=True)
    return nest.pack_like(given, [both(old, new) for old, new in pairs])


def static_shape(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return None
    dims = B.shape(x)
    if dims is None:
        return None
    return tuple(d if isinstance(d, int) else None for d in dims)
