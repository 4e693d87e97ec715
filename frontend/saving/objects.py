"""Objects as configurations, `{"module": ..., "class_name": ..., "config": {...}}`, and back.

A function of the user's own is one with the class name "function" and its name as config. What a
configuration names is looked for among what the user has registered or handed over, in onnxtape,
and, for layers, losses and their like, in modules that are imported already. Nothing else is ever
imported or called, so a configuration may come from anybody.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

#: What stands for a class's name where a configuration is a function's.
FUNCTION = "function"

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

    Onnxtape's activations become their names, and so do functions that have one; anything else
    stays as it is.
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
    if inspect.isfunction(layer) and layer.__name__ != "<lambda>":
        own = {id(thing): name for name, thing in _custom.items() if ">" in name}
        return {
            "module": layer.__module__,
            "class_name": FUNCTION,
            "config": layer.__name__,
            "registered_name": own.get(id(layer), layer.__name__),
        }
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
    if not isinstance(x, Mapping) or "class_name" not in x:
        return False
    return isinstance(x.get("config"), Mapping) or _is_function(x)


def _is_function(config: Mapping[str, Any]) -> bool:
    return config["class_name"] == FUNCTION and isinstance(config.get("config"), str)


def revive(x: Any) -> Any:
    """An argument of a constructor, with configurations of layers and of the user's own objects as
    objects; those of onnxtape's initializers and their like are left to whoever takes them."""
    from onnxtape.generators import SeedGenerator
    from onnxtape.layers.layer import Layer

    if isinstance(x, (list, tuple)) and not hasattr(x, "_fields"):
        return type(x)(map(revive, x))
    if is_configuration(x):
        if _is_function(x):
            return _find(x)
        cls = _lookup(x)
        if cls is None and not _is_of_package(x.get("module")):
            cls = _find(x)
        if cls is not None and (issubclass(cls, (Layer, SeedGenerator)) or not _is_ours(cls)):
            return _revived(x, cls)
    return x


def _revived(config: Any, cls: Any) -> Any:
    if cls is None or _is_function(config):
        return config if cls is None else cls
    return cls.from_config(config["config"])


def _find(config: Mapping[str, Any]) -> Any:
    if _is_function(config):
        return _function(config)
    cls = _lookup(config)
    if cls is None:
        raise ValueError(
            f"no class is called {config['class_name']!r}: give custom_objects="
            f"{{{config['class_name']!r}: the class}}, or put "
            "@ot.saving.register_keras_serializable() above it"
        )
    return cls


def _lookup(config: Mapping[str, Any]) -> Any:
    """The class of a configuration; None where there is none."""
    import onnxtape as ot

    name = config["class_name"]
    if (own := _own(config, name)) is not None:
        return own
    module = config.get("module") or "onnxtape"
    if not _is_of_package(module):
        imported = vars(sys.modules[module]) if module in sys.modules else {}
        return _if_made_of_arguments(imported.get(name))
    found = getattr(_of_package(module), name, None)
    found = found if isinstance(found, type) and hasattr(found, "from_config") else None
    places = (ot.layers, ot, ot.models.functional)
    candidates = (getattr(place, name, None) for place in places)
    return found or next((cls for cls in candidates if isinstance(cls, type)), None)


def _function(config: Mapping[str, Any]) -> Any:
    from onnxtape import activations, ops

    name = config["config"]
    found = _own(config, name)
    if found is None and _is_of_package(config.get("module")):
        places = (place for place in (ops, activations) if name in place.__all__)
        found = next((getattr(place, name) for place in places), None)
    if found is None:
        raise ValueError(
            f"no function is called {name!r}: give custom_objects={{{name!r}: the function}}, or "
            "put @ot.saving.register_keras_serializable() above it"
        )
    return found


def _own(config: Mapping[str, Any], name: str) -> Any:
    """What the user has registered, or handed over, for a configuration."""
    keys = (config.get("registered_name"), name)
    return next((_custom[key] for key in keys if key in _custom), None)


def _of_package(module: str) -> Any:
    """One of onnxtape's modules, by its name here or in Keras."""
    path = ["onnxtape", *module.split(".")[1:]]
    if any(part.startswith("_") for part in path):
        return None
    try:
        return importlib.import_module(".".join(path))
    except ImportError:
        return None


def _if_made_of_arguments(found: Any) -> Any:
    """A class that is made of its arguments, as all of onnxtape's with a configuration are."""
    from onnxtape.constructing import Constructed

    return found if isinstance(found, type) and issubclass(found, Constructed) else None


def _is_of_package(module: str | None) -> bool:
    """Whether a configuration's module is one of onnxtape's, or Keras's."""
    return (module or "onnxtape").partition(".")[0] in ("onnxtape", "keras")


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "onnxtape"
