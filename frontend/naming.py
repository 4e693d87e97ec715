"""Names of layers, optimizers and metrics: given, or counted as Keras counts them."""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable

_used: Counter[str] = Counter()


def to_snake_case(name: str) -> str:
    """`SparseCategoricalAccuracy` to `sparse_categorical_accuracy`, `Conv2D` to `conv2d`."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def auto_name(stem: str) -> str:
    """`dense`, then `dense_1`, `dense_2`, ..."""
    count = _used[stem]
    _used[stem] += 1
    return f"{stem}_{count}" if count else stem


def distinct(path: str, is_taken: Callable[[str], bool]) -> str:
    """The path itself, or if it is taken the first that is not with its first part counted:
    `mean/total`, then `mean_1/total`."""
    if not is_taken(path):
        return path
    first, slash, rest = path.partition("/")
    counted = (f"{first}_{count}{slash}{rest}" for count in itertools.count(1))
    return next(other for other in counted if not is_taken(other))


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: those that it may stand for, else all."""
    names = list(known)
    close = difflib.get_close_matches(name, names, 2) or [
        other for other in names if "".join(part[:1] for part in other.split("_")) == name
    ]
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; it has {', '.join(names) or 'none'}"


def reset_names() -> None:
    """Count from the beginning again, as `keras.backend.clear_session` does."""
    _used.clear()
