"""Writes keras.npz: what Keras 3 makes of the programs in keras_cases.py, and its dtype rules.

Run it in an environment with Keras 3 and TensorFlow, the backend on which Keras keeps 64-bit
types: ``python tests/reference/make_keras_reference.py [PATH]``. `tests/peers` runs it again and
compares.

Besides the arrays of each program, under ``PROGRAM/NAME``, the file holds

- ``dtypes``: names of dtypes, then of Python's ``int`` and ``float``;
- ``promotion``: the dtype in which each pair of them meets;
- ``unary_operations``, ``unary``: the dtype that each operation gives for each dtype of its
  argument; "" where Keras refuses;
- ``binary_operations``, ``binary``: the same for pairs.
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["COLUMNS"] = "80"
sys.path.insert(0, str(Path(__file__).parent))

import keras
import keras_cases
import numpy as np

DTYPES = ["bool", "uint8", "int8", "int16", "uint32", "int32", "int64", "bfloat16", "float16",
          "float32", "float64"]  # fmt: skip
WEAK = {"int": int, "float": float}
UNARY = [
    "absolute", "all", "any", "argmax", "ceil", "count_nonzero", "cumsum", "exp", "expm1", "floor",
    "isnan", "log", "log10", "log1p", "max", "mean", "negative", "ones_like", "prod", "round",
    "sign", "sin", "sqrt", "square", "std", "sum", "tanh", "var", "zeros_like",
]  # fmt: skip
BINARY = ["add", "divide", "equal", "floor_divide", "matmul", "maximum", "multiply", "power",
          "subtract"]  # fmt: skip


def promotion() -> Any:
    """The dtype in which each pair meets."""
    types = [WEAK.get(name, name) for name in [*DTYPES, *WEAK]]
    return np.array([[keras.backend.result_type(a, b) for b in types] for a in types])


def results(operation: str, arguments: list[Any]) -> str:
    """The dtype of the result; "" where TensorFlow or Keras refuses."""
    try:
        return str(keras.backend.standardize_dtype(getattr(keras.ops, operation)(*arguments).dtype))
    except Exception:
        return ""


def main(path: Path) -> None:
    """Run everything and write it to `path`."""
    ones = {name: keras.ops.ones((2, 2), dtype=name) for name in DTYPES}
    arrays: dict[str, Any] = {
        "dtypes": np.array([*DTYPES, *WEAK]),
        "promotion": promotion(),
        "unary_operations": np.array(UNARY),
        "unary": np.array([[results(op, [ones[d]]) for d in DTYPES] for op in UNARY]),
        "binary_operations": np.array(BINARY),
        "binary": np.array(
            [[[results(op, [ones[a], ones[b]]) for b in DTYPES] for a in DTYPES] for op in BINARY]
        ),
    }
    for program in ("activations", "layers", "losses", "metrics", "optimizers", "models"):
        found = getattr(keras_cases, program)(keras)
        arrays |= {f"{program}/{name}": value for name, value in found.items()}
    arrays |= {f"summaries/{k}": np.array(v) for k, v in keras_cases.summaries(keras).items()}
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("keras.npz"))
