"""Writes torch_conventions.npz: PyTorch's gradients where a derivative has to be chosen.

    python tests/reference/make_torch_conventions.py [OUTPUT]

Needs torch; see `conventions.py` for the cases. In double precision.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: F401 (used by the conventions' words)
from conventions import CONVENTIONS, FUNCTIONS, Convention, Fixed

HERE = Path(__file__).parent


def gradients(case: Convention) -> list[Any]:
    values: dict[str, Any] = {}
    for name, x in zip("xyz", case.inputs, strict=False):
        if x is None:
            continue
        array = x.array if isinstance(x, Fixed) else np.asarray(x)
        values[name] = torch.tensor(array)
    sources = [values["xyz"[i]].requires_grad_() for i in case.sources()]
    y = eval(case.torch, globals(), values)
    y.backward(torch.arange(1.0, y.numel() + 1, dtype=y.dtype).reshape(y.shape))
    return [source.grad.numpy() for source in sources]


def main(output: Path) -> None:
    found = {}
    for case in (*CONVENTIONS, *FUNCTIONS):
        for i, gradient in zip(case.sources(), gradients(case), strict=True):
            found[f"{case.name} {i}"] = gradient
    np.savez_compressed(output, **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "torch_conventions.npz")
