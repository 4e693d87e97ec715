"""Layers, with Keras 3's names, arguments, defaults and numbers."""

from onnxtape.functional import Input
from onnxtape.layers.core import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    Identity,
    Rescaling,
    Reshape,
)
from onnxtape.layers.layer import Layer

__all__ = [
    "Activation",
    "Dense",
    "Dropout",
    "Flatten",
    "Identity",
    "Input",
    "Layer",
    "Rescaling",
    "Reshape",
]
