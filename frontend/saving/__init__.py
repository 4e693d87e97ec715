"""Whole models in files, and configurations of objects, with the names of `keras.saving`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxtape import missing
from onnxtape.saving.models import load_model, save_model
from onnxtape.saving.objects import (
    custom_object_scope,
    get_custom_objects,
    register_keras_serializable,
)
from onnxtape.saving.objects import deserialize as deserialize_keras_object
from onnxtape.saving.objects import serialize as serialize_keras_object

__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "load_model",
    "register_keras_serializable",
    "save_model",
    "serialize_keras_object",
]

CustomObjectScope = custom_object_scope

if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, __all__)
