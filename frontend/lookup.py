"""Finding the object that a name, a class or a configuration stands for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from onnxtape.constructing import Constructed
from onnxtape.naming import to_snake_case
from onnxtape.saving.objects import FUNCTION, deserialize, get_custom_objects, revive


def by_name(
    classes: Iterable[type], aliases: Mapping[str, type] | None = None
) -> Mapping[str, Callable[..., Any]]:
    """Classes by their names in snake case, and by other names."""
    return {to_snake_case(cls.__name__): cls for cls in classes} | dict(aliases or {})


def find(
    identifier: Any,
    table: Mapping[str, Callable[..., Any]],
    base: type,
    what: str,
    *,
    functions: bool = False,
) -> Any:
    """The object that `identifier` stands for.

    Args:
        identifier: a name, in snake case or as the class is called; a configuration
            `{"class_name": name, "config": {...}}` as Keras writes it; a class; the object itself;
            or None, which stays None.
        table: classes by name.
        base: of all such objects.
        what: what they are called in errors.
        functions: whether any other callable will do.

    Raises:
        ValueError: an unknown name.
        TypeError: something else.
    """
    if identifier is None or isinstance(identifier, base):
        return identifier
    config: dict[str, Any] = {}
    own = get_custom_objects()
    if isinstance(identifier, Mapping) and "class_name" in identifier:
        if identifier["class_name"] == FUNCTION:
            return deserialize(identifier)
        config = dict(identifier.get("config") or {})
        identifier = identifier["class_name"]
    if isinstance(identifier, str) and identifier in own:
        made: Any = own[identifier]
        is_class = inspect.isclass(made)
        return made.from_config(config) if is_class else made
    if isinstance(identifier, str):
        cls: Any = {_key(name): found for name, found in table.items()}.get(_key(identifier))
        if cls is None:
            raise ValueError(f"no {what} is called {identifier!r}; there are {', '.join(table)}")
        return cls.from_config(config) if config else cls()
    if inspect.isclass(identifier) and issubclass(identifier, base):
        return identifier()
    if functions and callable(identifier):
        return identifier
    article = "an" if what[0] in "aeiou" else "a"
    raise TypeError(f"cannot make {article} {what} of {identifier!r}")


def _key(name: str) -> str:
    return name.replace("_", "").lower()


class Configurable(Constructed):
    """What can be made again from its arguments, which it keeps in attributes of their names."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that `from_config` makes an equal object of."""
        names = argument_names(type(self))
        missing = [name for name in names if not hasattr(self, name)]
        if missing:
            raise NotImplementedError(
                f"{type(self).__name__} keeps no attribute '{missing[0]}' for its argument of that "
                "name: keep one, or write get_config"
            )
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """An object made of the arguments that `get_config` gave."""
        return cls(**{name: revive(value) for name, value in config.items()})


def argument_names(cls: type) -> list[str]:
    """The arguments that a class and its bases take by name."""
    found: dict[str, None] = {}
    for base in cls.__mro__:
        own = vars(base).get("__init__")
        if not inspect.isfunction(own):
            continue
        parameters = list(inspect.signature(own).parameters.values())[1:]
        found |= {
            p.name: None for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(found)
