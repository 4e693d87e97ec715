"""The generator of random numbers: Squares (B. Widynski, "Squares: A Fast Counter-Based RNG",
arXiv:2004.06278), with 64 bits of output, written in standard integer operators.

Its state is a variable of a key and a counter, so it is saved, restored and exported like every
other state.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import context
from onnxtape.engine import B, convert_to_tensor
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

_UINT64 = np.dtype(np.uint64)
_INT64 = np.dtype(np.int64)
_MASK64 = (1 << 64) - 1


class SeedGenerator:
    """A stream of random numbers.

    Args:
        seed: an int; streams of different seeds are independent. By default from the system.

    Attributes:
        state: uint64 vector (key, counter): the counter moves on with each draw.
    """

    def __init__(self, seed: int | None = None, name: str | None = None) -> None:
        self._seed, self._name = seed, name
        value = _initial_state(secrets.randbits(63) if seed is None else seed)
        self.state = Variable(
            value, trainable=False, name=name or "seed_generator", role="generator"
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments; where the stream has come is its state's."""
        return {"seed": self._seed, "name": self._name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SeedGenerator:
        """A stream of the arguments that `get_config` gave, from its beginning."""
        return cls(**config)

    def reset(self, seed: int) -> None:
        """Start the stream of `seed` from its beginning."""
        self.state.assign(_initial_state(seed))

    def draw(self, count: Any) -> Tensor:
        """`count` (an int or an int64 scalar tensor) random uint64 numbers; advances the stream."""
        state = self.state.value
        self.state.assign(_advanced(state, count))
        return _squares(state, count)


# Selects the counter: (key, counter) + count * (0, 1).
_SECOND = np.asarray([0, 1], dtype=np.uint64)


def _advanced(state: Tensor, count: Any) -> Tensor:
    advance = B.op("Mul", B.cast(convert_to_tensor(count), _UINT64), _SECOND)
    return B.op("Add", state, advance)


def _initial_state(seed: int) -> npt.NDArray[np.uint64]:
    return np.asarray([_key(seed), 0], dtype=np.uint64)


def _key(seed: int) -> int:
    """An odd key with well mixed bits: SplitMix64's output function of the seed."""
    z = (seed + 0x9E3779B97F4A7C15) & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return (z ^ (z >> 31)) | 1


def _squares(state: Tensor, count: Any) -> Tensor:
    """Squares64 of `count` consecutive counters."""
    key, start = B.op_multi("Split", state, outputs=2, axis=0, num_outputs=2)
    steps = B.op("Range", *(convert_to_tensor(v, _INT64) for v in (0, count, 1)))
    counters = B.op("Add", B.cast(steps, _UINT64), start)
    half = np.asarray(32, dtype=np.uint64)

    def swapped_halves(v: Tensor) -> Tensor:
        high = B.op("BitShift", v, half, direction="LEFT")
        low = B.op("BitShift", v, half, direction="RIGHT")
        return B.op("BitwiseOr", high, low)

    y = B.op("Mul", counters, key)
    z = B.op("Add", y, key)
    x = y
    for addend in (y, z, y):
        x = swapped_halves(B.op("Add", B.op("Mul", x, x), addend))
    t = B.op("Add", B.op("Mul", x, x), z)
    x = swapped_halves(t)
    last = B.op("Add", B.op("Mul", x, x), y)
    return B.op("BitwiseXor", t, B.op("BitShift", last, half, direction="RIGHT"))


@functools.cache
def global_generator() -> SeedGenerator:
    """The stream that is used where no seed is given."""
    with context.eagerly():
        return SeedGenerator(name="global_seed_generator")


@functools.cache
def initial_generator() -> SeedGenerator:
    """The stream that variables' initial values are drawn from.

    Apart from the global one: a trace makes initial values at once and leaves the step's own
    numbers for when it runs, while eagerly both come in turn. Both must give the same numbers.
    """
    with context.eagerly():
        return SeedGenerator(name="initial_seed_generator")


def set_seed(seed: int) -> None:
    """Start from `seed`: initial values, the global stream, the shuffling of new datasets.

    Compiled functions go on with the new stream; they need no new trace.
    """
    from onnxtape import data

    with context.eagerly():
        global_generator().reset(seed)
        # Any other number that depends on the seed.
        initial_generator().reset(~seed)
    data.set_global_seed(seed)


def generator_of(seed: Any) -> SeedGenerator | FixedStream:
    """What `seed` means: a `SeedGenerator` itself; the same numbers always, of an int; the stream
    in use, of None.

    Raises:
        TypeError: it is none of these.
    """
    if seed is None:
        return initial_generator() if context.state.initializing else global_generator()
    if isinstance(seed, (SeedGenerator, FixedStream)):
        return seed
    if isinstance(seed, (int, np.integer)):
        return FixedStream(int(seed))
    raise TypeError(f"seed is None, an int or a SeedGenerator, not {type(seed).__name__}")


class FixedStream:
    """The stream of a seed from its beginning: the same numbers for whoever makes one anew."""

    def __init__(self, seed: int) -> None:
        self._state = B.constant(_initial_state(seed))

    def draw(self, count: Any) -> Tensor:
        """As `SeedGenerator.draw`."""
        numbers = _squares(self._state, count)
        self._state = _advanced(self._state, count)
        return numbers
