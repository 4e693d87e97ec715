"""What an operation's case is: a call of `ot.ops`, and what NumPy says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Given:
    """A tensor argument.

    Attributes:
        array: its value.
        batch: the axis that is symbolic in the compiled run and grows there; None for none.
    """

    array: Array
    batch: int | None = 0

    def grown(self) -> Given:
        """One longer along the batch axis."""
        if self.batch is None or not self.array.shape[self.batch]:
            return self
        first = np.take(self.array, [0], axis=self.batch)
        return replace(self, array=np.concatenate([self.array, first], axis=self.batch))

    @property
    def shape(self) -> tuple[int | None, ...]:
        """With None for the batch axis."""
        dims: list[int | None] = list(self.array.shape)
        if self.batch is not None:
            dims[self.batch] = None
        return tuple(dims)


def given(values: Any, dtype: Any = None) -> Given:
    """A tensor argument whose first axis is the batch."""
    array = np.asarray(values, dtype=dtype)
    return Given(array, 0 if array.ndim else None)


def fixed(values: Any, dtype: Any = None) -> Given:
    """A tensor argument of one shape."""
    return Given(np.asarray(values, dtype=dtype), None)


@dataclass(frozen=True)
class Case:
    """One call of an operation.

    Attributes:
        op: the operation's name in `ot.ops`.
        args, kwargs: `Given` tensors (also in lists), and what is passed as it is.
        oracle: NumPy's answer to the same arguments, floats in float64; or a list of answers.
        dtype: of the result (of each, in a tuple); default: that of the first tensor.
        gradient: whether the gradient by every float tensor is compared with differences.
        tolerance: relative, and absolute for values around 1; default by dtype.
        step: of the central differences.
        note: tells the cases of an operation apart.
        compiled: whether it runs in a compiled step, too.
    """

    op: str
    args: Sequence[Any]
    oracle: Callable[..., Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | tuple[str, ...] | None = None
    gradient: bool = False
    tolerance: float | None = None
    step: float = 1e-5
    note: str = ""
    compiled: bool = True

    @property
    def id(self) -> str:
        arguments = map(_shown, self.args)
        options = [f"{k}={_shown(v)}" for k, v in self.kwargs.items()]
        return "-".join([self.op, *filter(None, [self.note]), *arguments, *options])

    def tensors(self) -> list[Given]:
        """The tensor arguments from left to right."""
        found: list[Given] = []
        self.map(found.append)
        return found

    def map(self, swap: Callable[[Given], Any]) -> list[Any]:
        """The arguments with every tensor swapped."""
        return [_map(arg, swap) for arg in self.args]

    def dtypes(self, count: int) -> list[str]:
        """Of each of the results."""
        if isinstance(self.dtype, tuple):
            return list(self.dtype)
        return [self.dtype or self.tensors()[0].array.dtype.name] * count

    def expected(self, arrays: Sequence[Array]) -> list[Array]:
        """NumPy's results."""
        queue = iter(arrays)
        result = self.oracle(*self.map(lambda _: next(queue)), **self.kwargs)
        return [np.asarray(r) for r in (result if isinstance(result, list) else [result])]


def few_compiled(cases: Iterable[Case]) -> list[Case]:
    """The cases, of which few run compiled, which takes most of the time: the first of each
    operation, and the first with gradients.

    The others differ in dtypes and options, which choose other kernels, but no other way through
    the compiler.
    """
    found, seen, smooth = [], Counter[str](), Counter[str]()
    for case in cases:
        compiled = seen[case.op] < 2 or (case.gradient and smooth[case.op] < 1)
        seen[case.op] += 1
        smooth[case.op] += case.gradient
        found.append(replace(case, compiled=compiled))
    return found


def _shown(arg: Any) -> str:
    if isinstance(arg, Given):
        return f"{arg.array.dtype.name}({'x'.join(map(str, arg.array.shape))})"
    if isinstance(arg, (list, tuple)) and any(isinstance(a, Given) for a in arg):
        return "+".join(map(_shown, arg))
    return str(arg).replace(" ", "")


def _map(arg: Any, swap: Callable[[Given], Any]) -> Any:
    if isinstance(arg, Given):
        return swap(arg)
    if isinstance(arg, (list, tuple)) and any(isinstance(a, Given) for a in arg):
        return type(arg)([_map(a, swap) for a in arg])
    return arg


def sample(shape: Sequence[int], low: float = -2.0, high: float = 2.0, seed: int = 0) -> Array:
    """float64 numbers in a range, none of them near its ends or near a half or a whole."""
    random = np.random.default_rng((seed, *shape))
    x = random.uniform(low, high, shape)
    # Kinks are at wholes and halves; differences must not step over them.
    near = np.abs(x * 2 - np.round(x * 2)) < 0.02
    return np.where(near, x + 0.02, x)


def integers(shape: Sequence[int], low: int = -5, high: int = 6, seed: int = 0) -> Array:
    """int64 numbers in [low, high)."""
    return np.random.default_rng((seed, *shape)).integers(low, high, shape)


def booleans(shape: Sequence[int], seed: int = 0) -> Array:
    """Booleans, of both kinds wherever there is room."""
    flat = np.arange(int(np.prod(shape))) % 2 == 0
    return np.random.default_rng((seed, *shape)).permutation(flat).reshape(shape)
