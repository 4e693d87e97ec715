"""Windows: weights that fall off towards both ends of a range."""

from __future__ import annotations

import numpy as np

from onnxtape.engine import B
from onnxtape.tensor import Tensor

__all__ = ["bartlett", "blackman", "hamming", "hanning", "kaiser"]


def bartlett(x: int) -> Tensor:
    """Bartlett's (triangular) window of x float32 numbers."""
    return B.constant(np.bartlett(int(x)).astype(np.float32))


def blackman(x: int) -> Tensor:
    """Blackman's window of x float32 numbers."""
    return B.constant(np.blackman(int(x)).astype(np.float32))


def hamming(x: int) -> Tensor:
    """Hamming's window of x float32 numbers."""
    return B.constant(np.hamming(int(x)).astype(np.float32))


def hanning(x: int) -> Tensor:
    """Von Hann's window of x float32 numbers."""
    return B.constant(np.hanning(int(x)).astype(np.float32))


def kaiser(x: int, beta: float) -> Tensor:
    """Kaiser's window of x float32 numbers; the larger beta, the narrower."""
    return B.constant(np.kaiser(int(x), float(beta)).astype(np.float32))
