"""What `ot.function(input_signature=...)` declares, and holding arguments to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxtape import nest
from onnxtape.arguments import Arguments, array_of
from onnxtape.compiler.dims import Shape
from onnxtape.errors import InputError
from onnxtape.runtime.batches import as_dtype
from onnxtape.signature import TensorSpec, mismatch, resolve_spec, unnamed
from onnxtape.tensor import Tensor


class InputSignature:
    """The declared arguments of a function.

    Args:
        function: the function's name, for messages.
        parameters: the names of all its parameters.
        trees: a `TensorSpec`, or a nested structure of them, for each of the first parameters.

    Attributes:
        trees: as given.
        names: what the batch inputs are called.

    Raises:
        ValueError: more entries than parameters.
        TypeError: something other than a `TensorSpec`.
    """

    def __init__(self, function: str, parameters: Sequence[str], trees: Sequence[Any]) -> None:
        if len(trees) > len(parameters):
            raise ValueError(
                f"input_signature has {len(trees)} entries, "
                f"but {function}() has {len(parameters)} parameters"
            )
        self.trees = tuple(trees)
        self.names: list[str] = []
        self._function = function
        self._parameters = parameters
        self._specs: list[TensorSpec] = []
        for parameter, tree in zip(parameters, trees, strict=False):
            for path, spec in nest.flatten_with_paths(tree, parameter):
                if not isinstance(spec, TensorSpec):
                    raise TypeError(
                        f"input_signature declares '{path}' of {function}() by a "
                        f"{type(spec).__name__}; use ot.TensorSpec"
                    )
                self.names.append(spec.name or path)
                self._specs.append(spec)

    @property
    def shapes(self) -> list[Shape]:
        """The batch inputs' shapes with every None named."""
        return resolve_spec(self.names, self._specs)

    def conform(self, arguments: Arguments) -> None:
        """Check arguments, converting NumPy and Python values where that keeps their kind.

        Raises:
            InputError: an argument has another structure, dtype or shape; or tensors are given for
                parameters that none is declared for.
        """
        for name, value, tree in zip(self._parameters, arguments.args, self.trees, strict=False):
            if nest.structure(value) != nest.structure(tree):
                raise InputError(
                    f"{self._function}(): '{name}' is not nested as input_signature declares"
                )
        for i, (name, spec) in enumerate(zip(self.names, self._specs, strict=True)):
            leaf = arguments.leaves[i]
            what = f"{self._function}(): '{name}'"
            if isinstance(leaf, (Tensor, TensorSpec)):
                if leaf.dtype != spec.dtype:
                    raise InputError(
                        f"{what} has dtype {leaf.dtype}, but input_signature declares "
                        f"{spec.dtype}; convert it with ops.cast"
                    )
            else:
                leaf = arguments.leaves[i] = as_dtype(array_of(leaf), spec.dtype, what)
            if problem := mismatch([name], [unnamed(spec.shape)], [leaf.shape]):
                raise InputError(f"{self._function}(): {problem} by input_signature")
        # What None stands for may differ; a name stands for one size.
        declared = [spec.shape for spec in self._specs]
        given = [arguments.leaves[i].shape for i in range(len(declared))]
        if problem := mismatch(self.names, declared, given):
            raise InputError(f"{self._function}(): {problem} by input_signature")
        arguments.describe(lambda structure, place: False)
        if len(arguments.places) > len(self._specs):
            raise InputError(
                f"{self._function}() takes {len(self._specs)} tensors by its input_signature, "
                f"but was given {len(arguments.places)}"
            )
