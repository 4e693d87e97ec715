"""What can be made again from the arguments it was made with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Self

from onnxtape.constructing import Constructed
from onnxtape.saving.objects import looked_up, revive, serialize


class Remade(Constructed):
    """Keeps the arguments of its constructor, for configurations and copies."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that `from_config` makes an equal object of, with weights of its own.

        Layers, initializers and their like inside are configurations, too: dicts with
        `class_name` and `config`. Subclasses need not write this; one that does may add to what
        `super().get_config()` gives.
        """
        args, kwargs = self.__dict__["_made_with"]
        signature = inspect.signature(type(self))
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        config: dict[str, Any] = {}
        takes_more = False
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_more = True
                config |= bound.arguments[name]
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                config[name] = bound.arguments[name]
        for name in ("name", "trainable", "dtype"):
            if (takes_more or name in signature.parameters) and hasattr(self, name):
                config[name] = getattr(self, name)
        if "dtype" in config:
            config["dtype"] = getattr(self, "dtype_policy", config["dtype"])
        if type(self).__module__.startswith("onnxtape."):
            config = {
                name: looked_up(name, value, getattr(self, name, None))
                for name, value in config.items()
            }
        return {name: serialize(value) for name, value in config.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """An object made of the arguments that `get_config` gave, here or in Keras."""
        return cls(**{name: revive(value) for name, value in config.items()})

    def remade(self, **changes: Any) -> Self:
        """One with the same arguments but for `changes`, and weights of its own."""
        args, kwargs = self.__dict__["_made_with"]

        def again(x: Any) -> Any:
            if isinstance(x, (list, tuple)):
                return type(x)(map(again, x))
            return x.remade() if isinstance(x, Remade) else x

        kept = {key: again(x) for key, x in kwargs.items() if key != "name"}
        return type(self)(*map(again, args), **{**kept, **changes})
