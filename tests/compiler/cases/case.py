"""What a gradient case is: one operator applied to given inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxtape.compiler.dtypes import is_floating
from tests.compiler.graphs import Array


class Fixed:
    """A floating-point input that is not differentiated."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)


@dataclass(frozen=True)
class Case:
    """One operator, its inputs and attributes.

    Attributes:
        inputs: floating-point arrays are differentiated. Integers, and what is `Fixed`, are
            constants or, in the "dynamic" variants, graph inputs. None is an omitted input.
        outputs: how many the node has.
        note: tells the cases of an operator apart.
        smooth: whether second derivatives exist there and are checked.
        step: of the central differences.
        tolerance: relative and absolute.
        dynamic: whether the constants may be graph inputs.
        opset: of the graph.
        portable: whether ONNX Runtime computes the same; it may lack or refuse what ONNX has, and
            draws other random numbers.
    """

    op: str
    inputs: Sequence[Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    note: str = ""
    smooth: bool = True
    step: float = 1e-5
    tolerance: float = 1e-6
    dynamic: bool = True
    opset: int = 21
    portable: bool = True

    @property
    def id(self) -> str:
        shapes = [
            "none" if x is None else "x".join(map(str, np.shape(self.array(i)))) or "scalar"
            for i, x in enumerate(self.inputs)
        ]
        flags = [f"{k}={v}".replace(" ", "") for k, v in self.attributes.items()]
        if self.outputs > 1:
            flags.append(f"{self.outputs}outputs")
        return "-".join([self.op, *filter(None, [self.note]), *shapes, *flags])

    def array(self, index: int) -> Array:
        x = self.inputs[index]
        array: Array = x.array if isinstance(x, Fixed) else np.asarray(x)
        return array

    def is_source(self, index: int) -> bool:
        x = self.inputs[index]
        return x is not None and not isinstance(x, Fixed) and is_floating(self.array(index).dtype)

    def is_constant(self, index: int) -> bool:
        """Whether the input is one that graphs usually hold as a constant."""
        x = self.inputs[index]
        return isinstance(x, Fixed) or self.array(index).dtype == np.int64

    @property
    def sources(self) -> list[int]:
        return [i for i in range(len(self.inputs)) if self.is_source(i)]

    @property
    def has_constants(self) -> bool:
        return any(x is not None and self.is_constant(i) for i, x in enumerate(self.inputs))
