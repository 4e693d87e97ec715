"""Writes keras_names.json: the public names of the installed Keras, by module.

Run with the peers' environment, after a new version of Keras:

    KERAS_BACKEND=jax python tests/reference/make_keras_parity.py

(With that backend Keras's classes have no methods but Keras's own.)
"""

from __future__ import annotations

import inspect
import json
import operator
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


def names(thing: Any) -> list[str]:
    """Public members, but for modules."""
    return sorted(
        name
        for name in dir(thing)
        if not name.startswith("_") and not inspect.ismodule(getattr(thing, name, None))
    )


def main() -> None:
    found = {module: names(operator.attrgetter(module)(keras)) for module in MODULES}
    found |= {cls: names(operator.attrgetter(cls)(keras)) for cls in CLASSES}
    path = Path(__file__).with_name("keras_names.json")
    content = {"version": keras.__version__, "names": found}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{path.name}: {sum(map(len, found.values()))} names of Keras {keras.__version__}")


if __name__ == "__main__":
    main()
