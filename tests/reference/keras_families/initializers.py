"""The initializers that draw no random numbers, and the configurations of all."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, numpy

NAMES = [
    "Zeros", "Ones", "Identity", "RandomNormal", "RandomUniform", "TruncatedNormal",
    "VarianceScaling", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal",
    "LecunUniform", "Orthogonal", "STFT",
]  # fmt: skip
RANDOM = NAMES[3:-1]


def _constants(k: Any) -> Arrays:
    of = k.initializers
    return {
        "zeros": numpy(of.Zeros()((2, 3))),
        "ones": numpy(of.ones()((2,))),
        "constant": numpy(of.Constant(2.5)((3, 1))),
        "identity": numpy(of.Identity()((3, 3))),
        "identity_wide": numpy(of.identity(0.5)((2, 4))),
        "array": numpy(of.get(np.arange(3.0))((3,), dtype="float32")),
    }


def _stft(k: Any) -> Arrays:
    of = k.initializers.STFT
    window = np.linspace(0.1, 1.0, 8)
    found = {
        f"{side}.{name}.{scaling}": numpy(of(side, name, scaling)((8, 1, 5)))
        for side in ("real", "imag")
        for name in ("hann", "hamming", "blackman", "bartlett")
        for scaling in ("density", "spectrum", None)
    }
    found["periodic"] = numpy(of(periodic=True)((8, 1, 5)))
    found["rectangle"] = numpy(of(window=None)((8, 1, 9)))
    found["array"] = numpy(of(window=window)((8, 1, 5)))
    return found


def _names(k: Any) -> Arrays:
    """What is found by name, and its arguments."""
    found: Arrays = {}
    for name in NAMES:
        found[name] = np.array(type(k.initializers.get(name)).__name__)
        if name in RANDOM:
            initializer = getattr(k.initializers, name)()
            config = initializer.get_config()
            again = type(initializer).from_config(config)
            found[f"{name}.config"] = np.array(repr(sorted(config.items())))
            found[f"{name}.again"] = np.array(repr(sorted(again.get_config().items())))
    for alias in ("zero", "one", "normal", "uniform", "OrthogonalInitializer", "glorot_uniform"):
        found[alias] = np.array(type(k.initializers.get(alias)).__name__)
    return found


PROGRAMS = {"constants": _constants, "stft": _stft, "names": _names}
