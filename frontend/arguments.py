"""The arguments of one call of a compiled function, flattened and described."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape import nest
from onnxtape.compiler.dims import Shape
from onnxtape.devices import lies_on_device, taken
from onnxtape.engine import NumberTensor, ort_value
from onnxtape.runtime import values
from onnxtape.signature import Identity, TensorSpec
from onnxtape.tensor import Tensor, as_array
from onnxtape.trainable import TrainableFlag
from onnxtape.variable import Variable

if TYPE_CHECKING:
    from onnxtape.concrete import ConcreteFunction

#: Whether the number at a place of a structure is an input of the graph.
IsInput = Callable[[Any, int], bool]

_PLAIN = frozenset((np.ndarray, Tensor, float, int, bool, str, type(None)))


class Arguments:
    """Values bound to a function's parameters, in order.

    Leaves are arrays and tensors (batch inputs), Python numbers (constants, or batch inputs where
    `number_is_input` says so), `TensorSpec`s standing for tensors, and other objects, which are
    constants.

    Attributes:
        leaves: all leaves, left to right.
        places: which of them are batch inputs.
        promoted: which of those are Python numbers.
        key: equal for calls that one trace with exact shapes serves.
        structure: of everything but the leaves; None when no argument is nested.
        has_symbolic: whether a tensor among them has no value.
    """

    __slots__ = ("args", "has_symbolic", "key", "leaves", "places", "promoted", "structure")

    def __init__(self, args: tuple[Any, ...], number_is_input: IsInput) -> None:
        self.args = args
        if any(type(a) not in _PLAIN and isinstance(a, (Mapping, list, tuple)) for a in args):
            self.leaves = nest.flatten(args)
            self.structure = nest.structure(args)
        else:
            self.leaves = list(args)
            self.structure = None
        self.describe(number_is_input)

    def describe(self, number_is_input: IsInput) -> None:
        """Compute `places` and `key` from the leaves."""
        descriptions: list[Any] = []
        self.places: list[int] = []
        self.promoted: list[int] = []
        self.has_symbolic = False
        for i, leaf in enumerate(self.leaves):
            kind = type(leaf)
            if kind is not np.ndarray and kind is not Tensor and kind is not TensorSpec:
                if kind is float or kind is int:
                    if not number_is_input(self.structure, i):
                        descriptions.append((kind, leaf))
                        continue
                    self.promoted.append(i)
                    leaf = self.leaves[i] = np.asarray(leaf) if kind is float else as_array(leaf)
                elif kind in (bool, str, type(None), np.bool_):
                    descriptions.append((kind, leaf))
                    continue
                elif isinstance(leaf, Variable) or not (
                    hasattr(leaf, "__array__") or hasattr(leaf, "__dlpack__")
                ):
                    descriptions.append(Identity(leaf))
                    continue
                else:
                    leaf = self.leaves[i] = array_of(leaf)
            elif kind is Tensor and leaf._symbolic is not None:
                self.has_symbolic = True
            descriptions.append((leaf.dtype, leaf.shape))
            self.places.append(i)
        self.key = (self.structure, tuple(descriptions))

    def all_tensors(self, args: tuple[Any, ...]) -> bool:
        """Whether the call was of the plainest kind: arrays and tensors, each by itself.

        Args:
            args: as they were given, of which `*args` may take several.
        """
        if any(isinstance(arg, (Mapping, list, tuple)) for arg in args):
            return False
        return len(args) == len(self.leaves) == len(self.places)

    @property
    def family_key(self) -> Any:
        """Equal for calls that differ in sizes only."""
        family = list(self.key[1])
        for i in self.places:
            dtype, shape = family[i]
            family[i] = (dtype, len(shape))
        return (self.structure, tuple(family))

    @property
    def numbers(self) -> list[tuple[int, float]]:
        """The places and values of Python numbers that are constants of the graph."""
        return [(i, leaf) for i, leaf in enumerate(self.leaves) if type(leaf) in (int, float)]

    @property
    def dtypes(self) -> list[np.dtype[Any]]:
        return [self.leaves[i].dtype for i in self.places]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Of the batch inputs; `TensorSpec`s may have None and names in theirs."""
        return tuple([tuple(self.leaves[i].shape) for i in self.places])

    def names(self, parameters: Sequence[str]) -> list[str]:
        """The batch inputs' names: the parameter's, with the path inside it."""
        if self.structure is None:
            return [parameters[i] for i in self.places]
        paths: list[str] = []
        for name, value in zip(parameters, self.args, strict=True):
            paths.extend(path for path, _ in nest.flatten_with_paths(value, name))
        return [paths[i] for i in self.places]

    def check(self, parameters: Sequence[str]) -> None:
        """Refuse arrays whose dtype no tensor has, such as text and objects.

        Raises:
            TypeError: names the argument.
        """
        for i, name in zip(self.places, self.names(parameters), strict=True):
            if isinstance(self.leaves[i], np.ndarray):
                try:
                    as_array(self.leaves[i])
                except TypeError as error:
                    raise TypeError(f"argument '{name}': {error}") from None

    def ort_values(self) -> list[Any]:
        """The batch inputs as OrtValues, without copying."""
        leaves = self.leaves
        return [_ort_value(leaves[i]) for i in self.places]

    def rebuild(self, tensors: Sequence[Tensor]) -> Any:
        """The arguments with these tensors in the batch inputs' places."""
        leaves = list(self.leaves)
        for i, tensor in zip(self.places, tensors, strict=True):
            # An int that needs 64 bits is a tensor of its own kind.
            is_number = i in self.promoted and tensor.dtype != np.int64
            leaves[i] = NumberTensor.of(tensor) if is_number else tensor
        return leaves if self.structure is None else nest.pack_like(self.args, leaves)

    def as_specs(self) -> tuple[Any, ...]:
        """The arguments with a `TensorSpec` for each batch input."""
        specs: list[Any] = list(self.leaves)
        for i in self.places:
            leaf = specs[i]
            if i in self.promoted:
                specs[i] = leaf.item()
            elif not isinstance(leaf, TensorSpec):
                specs[i] = TensorSpec(leaf.shape, leaf.dtype)
        rebuilt = specs if self.structure is None else nest.pack_like(self.args, specs)
        return tuple(rebuilt)


class Recent:
    """The last call and its trace: the next call is most likely the same, and this tells sooner.

    For calls with one array or tensor per parameter.
    """

    __slots__ = ("_expected", "_flags", "concrete")

    def __init__(self, concrete: ConcreteFunction, arguments: Arguments) -> None:
        self.concrete = concrete
        self._expected = list(zip(arguments.dtypes, arguments.shapes, strict=True))
        self._flags = concrete.traced.flags

    def match(self, args: tuple[Any, ...]) -> list[Any] | None:
        """The arguments as OrtValues, or None when the call is another."""
        if len(args) != len(self._expected):
            return None
        if self._flags.held_at != TrainableFlag.changes and not self._flags.hold():
            return None
        matched: list[Any] = []
        for arg, (dtype, shape) in zip(args, self._expected, strict=True):
            kind = type(arg)
            if (kind is not np.ndarray and kind is not Tensor) or (
                arg.shape != shape or arg.dtype != dtype
            ):
                return None
            matched.append(_ort_value(arg))
        return matched


def array_of(leaf: Any) -> Any:
    """An array of another library, NumPy scalars included; on a device, a tensor where it lies."""
    if lies_on_device(leaf):
        return Tensor._from_ort(taken(leaf))
    if hasattr(leaf, "__dlpack__") and not hasattr(leaf, "__array__"):
        return np.from_dlpack(leaf)
    return np.asarray(leaf)


def _ort_value(leaf: Any) -> Any:
    if type(leaf) is Tensor:
        return leaf._ort or ort_value(leaf)
    # Aliases the array, which `Arguments` holds during the call.
    return values.from_numpy(leaf)
