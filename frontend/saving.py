"""Configurations of the user's own classes and functions, with the names of `keras.saving`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxtape import missing
from onnxtape.layers.configuration import (
    custom_object_scope,
    get_custom_objects,
    register_keras_serializable,
)
from onnxtape.layers.configuration import deserialize as deserialize_keras_object
from onnxtape.layers.configuration import serialize as serialize_keras_object

__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "register_keras_serializable",
    "serialize_keras_object",
]

CustomObjectScope = custom_object_scope

if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, __all__)
