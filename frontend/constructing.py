"""Mistyped, missing and unfit arguments, said by the name that the user wrote."""

from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, Self, TypeVar

from onnxtape import context
from onnxtape.compiler.errors import located
from onnxtape.naming import suggestion

_TEXTS = reprlib.Repr()
_TEXTS.maxother = _TEXTS.maxstring = 100

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD
_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD


class Constructed:
    """Checks the arguments of its constructor before a base class gets them, and keeps them.

    Raises:
        TypeError: an argument that there is not, one that is missing, or something else than an
            integer where one belongs.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        _check(cls, args, kwargs)
        made = super().__new__(cls)
        made.__dict__["_made_with"] = (args, kwargs)
        return made

    def __repr__(self) -> str:
        return described(type(self).__name__, self._given_arguments())

    def _given_arguments(self) -> dict[str, Any]:
        """What the constructor was given other than defaults, by name as far as there are names."""
        args, kwargs = self.__dict__.get("_made_with", ((), {}))
        parameters = list(inspect.signature(type(self).__init__).parameters.values())[1:]
        names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, _EITHER)]
        defaults = {p.name: p.default for p in parameters}
        more = {f"args[{i}]": value for i, value in enumerate(args[len(names) :])}
        given = {**dict(zip(names, args, strict=False)), **more, **kwargs}
        return {name: x for name, x in given.items() if not _equal(x, defaults.get(name, ...))}

    def __reduce_ex__(self, protocol: Any) -> Any:
        """For copies, which need no arguments: they have all that came of them."""
        return _bare, (type(self),), self.__getstate__()


def _bare(cls: type[T]) -> T:
    return object.__new__(cls)


def _equal(x: Any, default: Any) -> bool:
    plain = isinstance(x, (bool, int, float, str, type(None)))
    return plain and type(x) is type(default) and bool(x == default)


def described(kind: str, properties: Mapping[str, Any]) -> str:
    """An object's text: `<Adam name=adam, learning_rate=0.001>`."""
    inside = ", ".join(f"{name}={_shortened(value)}" for name, value in properties.items())
    return f"<{kind} {inside}>" if inside else f"<{kind}>"


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else _TEXTS.repr(value)
    return " ".join(text.split())


def _check(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    known, takes_more = _arguments(cls)
    if not takes_more:
        for name in kwargs:
            if name not in known:
                raise mistaken(cls, name, known)
    own = vars(cls).get("__init__") or getattr(cls, "__init__", None)
    if not inspect.isfunction(own):
        if args:
            raise _mistake(f"{cls.__name__} takes no arguments")
        return
    signature = inspect.signature(own)
    parameters = list(signature.parameters.values())[1:]
    by_position = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, _EITHER)]
    takes_all = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(args) > len(by_position) and not takes_all:
        raise _mistake(
            f"{cls.__name__} takes {len(by_position)} arguments by position "
            f"({', '.join(by_position) or 'none'}), not {len(args)}"
        )
    given = {**dict(zip(by_position, args, strict=False)), **kwargs}
    for p in parameters:
        required = p.default is p.empty and p.kind in (_EITHER, p.KEYWORD_ONLY)
        if required and p.name not in given:
            raise _mistake(f"{cls.__name__} needs its argument '{p.name}'")
        if p.name in given and _is_ours(own) and p.annotation in ("int", "int | None"):
            value = given[p.name]
            if value is not None and not hasattr(type(value), "__index__"):
                raise _mistake(f"{cls.__name__}'s {p.name} is an integer, not {value!r}")


def mistaken(cls: type, name: str, known: Sequence[str]) -> TypeError:
    """The error of an argument that a class does not have."""
    return _mistake(f"{cls.__name__} has no argument '{name}'{suggestion(name, known)}")


def _mistake(text: str) -> TypeError:
    return TypeError(located(text, context.provenance()))


def _arguments(cls: type) -> tuple[list[str], bool]:
    """The arguments that a class and its bases take by name, and whether there may be others.

    A constructor of the user's own that takes **kwargs may take anything out of them; ours go
    to the base class whole, but where a class says that it `_keeps_arguments`.
    """
    found: dict[str, None] = {}
    for base in cls.__mro__:
        own = vars(base).get("__init__")
        if not inspect.isfunction(own):
            continue
        parameters = list(inspect.signature(own).parameters.values())[1:]
        kinds = {p.kind for p in parameters}
        found |= {p.name: None for p in parameters if p.kind in (_EITHER, p.KEYWORD_ONLY)}
        if _VAR_KEYWORD not in kinds:
            return list(found), False
        keeps = _VAR_POSITIONAL in kinds or vars(base).get("_keeps_arguments", False)
        if keeps or not _is_ours(own):
            return list(found), True
    return list(found), False


def _is_ours(function: Any) -> bool:
    # Of code that is run by `exec`, nobody knows the module.
    module = function.__module__ or ""
    return bool(module.partition(".")[0] == __name__.partition(".")[0])


def checks_names(method: Callable[P, R]) -> Callable[P, R]:
    """A method that says by its own name which argument it has not."""
    known = list(inspect.signature(method).parameters)[1:]

    @functools.wraps(method)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                raise _mistake(
                    f"{method.__name__}() has no argument '{name}'{suggestion(name, known)}"
                )
        return method(*args, **kwargs)

    return checked
