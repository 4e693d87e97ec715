"""Writes keras_names.json and keras_signatures.json: the installed Keras's names and arguments.

Run with the peers' environment, after a new version of Keras:

    KERAS_BACKEND=jax python tests/reference/make_keras_parity.py [FOLDER]

(With that backend Keras's classes have no methods but Keras's own.)
"""

from __future__ import annotations

import inspect
import json
import operator
import sys
from pathlib import Path
from typing import Any

import keras

MODULES = (
    *("layers", "ops", "ops.image", "ops.linalg", "losses", "metrics", "optimizers"),
    *("optimizers.schedules", "initializers", "regularizers", "constraints", "activations"),
    *("callbacks", "random", "models", "utils"),
)
#: Classes whose methods and properties count, too.
CLASSES = ("Model", "layers.Layer", "optimizers.Optimizer")
#: And those whose methods' arguments do.
MORE_CLASSES = ("Sequential", "metrics.Metric", "losses.Loss", "callbacks.Callback")


def names(thing: Any) -> list[str]:
    """Public members, but for modules."""
    return sorted(
        name
        for name in dir(thing)
        if not name.startswith("_") and not inspect.ismodule(getattr(thing, name, None))
    )


def signature(thing: Any) -> list[list[Any]] | None:
    """Name, kind and default of each parameter; None where there is no signature."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return None
    return [
        [p.name, p.kind.name, None if p.default is p.empty else repr(p.default)] for p in parameters
    ]


def signatures() -> dict[str, list[list[Any]]]:
    """Those of all public functions and classes, and of the methods that users call and write."""
    found = {}
    for module in MODULES:
        owner = operator.attrgetter(module)(keras)
        for name in names(owner):
            found[f"{module}.{name}"] = getattr(owner, name)
    for path in (*CLASSES, *MORE_CLASSES):
        cls = operator.attrgetter(path)(keras)
        for name in names(cls):
            if inspect.isfunction(inspect.getattr_static(cls, name)):
                found[f"{path}.{name}"] = getattr(cls, name)
    found |= {name: getattr(keras, name) for name in ("Input", "Sequential", "Variable")}
    made = {name: signature(thing) for name, thing in found.items() if callable(thing)}
    return {name: found for name, found in made.items() if found is not None}


def main() -> None:
    found = {module: names(operator.attrgetter(module)(keras)) for module in MODULES}
    found |= {cls: names(operator.attrgetter(cls)(keras)) for cls in CLASSES}
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    content = {"version": keras.__version__, "names": found}
    text = json.dumps(content, indent=1) + "\n"
    (folder / "keras_names.json").write_text(text, encoding="utf-8")
    lines = [f"  {json.dumps(n)}: {json.dumps(s)}" for n, s in sorted(signatures().items())]
    whole = ",\n".join(lines)
    text = f'{{\n "version": "{keras.__version__}",\n "signatures": {{\n{whole}\n }}\n}}\n'
    (folder / "keras_signatures.json").write_text(text, encoding="utf-8")
    print(f"{sum(map(len, found.values()))} names, {len(lines)} signatures of {keras.__version__}")


if __name__ == "__main__":
    main()
