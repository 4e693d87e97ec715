"""Objects as configurations, `{"module": ..., "class_name": ..., "config": {...}}`, and back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

#: The user's classes and functions by the names that configurations know them by.
_custom: dict[str, Any] = {}


@contextmanager
def custom_object_scope(custom_objects: Mapping[str, Any] | None) -> Iterator[None]:
    """Let configurations name these classes and functions inside the `with` block."""
    before = dict(_custom)
    _custom.update(custom_objects or {})
    try:
        yield
    finally:
        _custom.clear()
        _custom.update(before)


def get_custom_objects() -> dict[str, Any]:
    """The classes and functions that configurations may name besides onnxtape's; add your own."""
    return _custom


def register_keras_serializable(
    package: str = "Custom", name: str | None = None
) -> Callable[[T], T]:
    """A decorator: configurations may name this class or function."""

    def register(thing: T) -> T:
        own = name or str(getattr(thing, "__name__", thing))
        _custom[own] = _custom[f"{package}>{own}"] = thing
        return thing

    return register


def looked_up(name: str, value: Any, kept: Any) -> Any:
    """What an argument of onnxtape's layers stands for: an initializer for its name, and so on.

    Args:
        kept: the layer's attribute of that name: a tuple where one number stands for all axes.
    """
    from onnxtape import activations, constraints, initializers, regularizers

    kinds: dict[str, Callable[[Any], Any]] = {
        "activation": activations.get,
        "initializer": initializers.get,
        "regularizer": regularizers.get,
        "constraint": constraints.get,
    }
    if isinstance(kept, tuple) and isinstance(value, (int, list)):
        return kept
    if name == "data_format" and value is None:
        return "channels_last"
    get = kinds.get(name.rpartition("_")[2])
    return value if get is None else get(value)


def serialize(layer: Any) -> Any:
    """What has a configuration as a dict that `deserialize` makes an equal one of.

    Onnxtape's activations become their names; anything else stays as it is.
    """
    from onnxtape import activations

    if isinstance(layer, (list, tuple)) and not hasattr(layer, "_fields"):
        return type(layer)(map(serialize, layer))
    if isinstance(layer, Mapping):
        return {key: serialize(value) for key, value in layer.items()}
    if isinstance(layer, np.dtype):
        return layer.name
    if hasattr(layer, "get_config") and not isinstance(layer, type):
        cls = type(layer)
        return {"module": cls.__module__, "class_name": cls.__name__, "config": layer.get_config()}
    if callable(layer) and activations.is_named(layer):
        return activations.serialize(layer)
    return layer


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The object of a configuration; anything else as it is.

    Args:
        custom_objects: your classes by name.

    Raises:
        ValueError: there is no class of that name.
    """
    with custom_object_scope(custom_objects):
        return _revived(config, _find(config) if is_configuration(config) else None)


def is_configuration(x: Any) -> bool:
    """Whether this is a dict that `serialize` made, or Keras."""
    return isinstance(x, Mapping) and "class_name" in x and isinstance(x.get("config"), Mapping)


def revive(x: Any) -> Any:
    """An argument of a constructor, with configurations of layers and of the user's own objects as
    objects; those of onnxtape's initializers and their like are left to whoever takes them."""
    from onnxtape.layers.layer import Layer

    if isinstance(x, (list, tuple)) and not hasattr(x, "_fields"):
        return type(x)(map(revive, x))
    if is_configuration(x):
        cls = _lookup(x)
        if cls is None and not _is_of_package(x.get("module")):
            cls = _find(x)
        if cls is not None and (issubclass(cls, Layer) or not _is_ours(cls)):
            return _revived(x, cls)
    return x


def _revived(config: Any, cls: Any) -> Any:
    return config if cls is None else cls.from_config(config["config"])


def _find(config: Mapping[str, Any]) -> Any:
    cls = _lookup(config)
    if cls is None:
        raise ValueError(
            f"no class is called {config['class_name']!r}: give custom_objects="
            f"{{{config['class_name']!r}: the class}}, or put "
            "@ot.saving.register_keras_serializable() above it"
        )
    return cls


def _lookup(config: Mapping[str, Any]) -> Any:
    """The class of a configuration: a custom one, one of onnxtape's, or one of its module."""
    import onnxtape as ot

    name = config["class_name"]
    for key in (config.get("registered_name"), name):
        if key in _custom:
            return _custom[key]
    module = config.get("module") or "onnxtape"
    if _is_of_package(module):
        for place in (ot.layers, ot, ot.models.functional):
            if isinstance(found := getattr(place, name, None), type):
                return found
        module = module.replace("keras", "onnxtape", 1)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return found if isinstance(found, type) and hasattr(found, "from_config") else None


def _is_of_package(module: str | None) -> bool:
    """Whether a configuration's module is one of onnxtape's, or Keras's."""
    return (module or "onnxtape").partition(".")[0] in ("onnxtape", "keras")


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "onnxtape"
