"""Whether CUDA can be used here, and if not, what is missing and how to install it.

What is said when a session on CUDA is asked for, and by `onnxtape doctor`.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import io
import os
import re
from importlib import metadata
from typing import Any

#: What installs ONNX Runtime for CUDA together with NVIDIA's libraries.
INSTALL = "install onnxtape with its `gpu` extra (pip install '.[gpu]' in a clone)"

_CUDA = "CUDAExecutionProvider"
_FAILED = re.compile(r"^Failed to load ([^:\s]+)", re.MULTILINE)


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def both_packages() -> str | None:
    """What is wrong where onnxruntime and onnxruntime-gpu are both installed; None elsewhere."""
    if installed_version("onnxruntime") is None or installed_version("onnxruntime-gpu") is None:
        return None
    return (
        "both onnxruntime and onnxruntime-gpu are installed; they share one module, so that the "
        "one installed last has overwritten the other, and removing either breaks both: "
        f"`pip uninstall onnxruntime onnxruntime-gpu`, then install one (for CUDA: {INSTALL})"
    )


def has_driver() -> bool:
    """Whether NVIDIA's driver library can be loaded."""
    name = "nvcuda.dll" if os.name == "nt" else ctypes.util.find_library("cuda") or "libcuda.so.1"
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def missing_libraries(ort: Any) -> list[str]:
    """Load CUDA's and cuDNN's libraries; the file names of those that were not found.

    Those that pip has installed beside ONNX Runtime are not where the system looks, so they must be
    loaded before the first session on CUDA.
    """
    preload = getattr(ort, "preload_dlls", None)
    if preload is None:
        return []
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        preload()
    return _FAILED.findall(printed.getvalue())


def cuda_problem(ort: Any) -> str | None:
    """Why CUDA cannot be used here, in one sentence that ends with what to do; None if it can.

    Args:
        ort: the module onnxruntime.
    """
    if _CUDA not in ort.get_available_providers():
        return _not_built(ort)
    missing = list(_load(ort))
    problems = []
    if missing:
        problems.append(
            f"{', '.join(missing)} {'were' if len(missing) > 1 else 'was'} not found: "
            f"`pip install onnxruntime-gpu[cuda,cudnn]` brings NVIDIA's libraries "
            f"(this build wants CUDA {getattr(ort, 'cuda_version', '') or 'as its notes say'}), "
            "or put those that are installed on the loader's path (LD_LIBRARY_PATH)"
        )
    if not has_driver():
        problems.append(
            "no NVIDIA driver was found (libcuda): install it, or give the container the GPU "
            "(docker run --gpus all)"
        )
    return "; ".join(problems) or None


def _not_built(ort: Any) -> str:
    have = (
        f"it is not part of the onnxruntime {ort.__version__} installed here, which has "
        f"{', '.join(ort.get_available_providers())}"
    )
    if both := both_packages():
        return f"{have}: {both}"
    return (
        f"{have}: `pip uninstall onnxruntime`, then {INSTALL}; the two packages "
        "share one module, so keep only one"
    )


@functools.cache
def _load(ort: Any) -> tuple[str, ...]:
    return tuple(missing_libraries(ort))
