"""`onnxtape doctor`: what is installed here, what runs on it, and what is missing."""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from onnxtape.cli.output import print_table

_PACKAGES = (
    "onnxtape",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "safetensors",
    "onnx",
    "onnx-ir",
    "onnx-shape-inference",
    "networkx",
    "ml_dtypes",
    "rich",
    "torch",
    "keras",
)
_TO_TRAIN = ("numpy", "safetensors")
_TO_BUILD = ("onnx", "onnx-ir", "onnx-shape-inference", "networkx", "ml_dtypes")


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "doctor",
        help="show what is installed, and what is missing",
        description="Show versions, execution providers and threads, and say what is missing.",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the findings; the status is 1 where nothing can be trained."""
    from onnxtape.runtime.errors import ProviderError
    from onnxtape.runtime.providers import load_onnxruntime
    from onnxtape.runtime.session import get_num_threads

    versions = {name: _version(name) for name in _PACKAGES}
    rows = [("python", f"{platform.python_version()} on {platform.platform()}")]
    rows += [(name, version or "not installed") for name, version in versions.items()]
    print_table("Versions", ("package", "version"), rows)
    problems = list(missing_packages(versions))
    providers: list[str] = []
    try:
        ort = load_onnxruntime()
        providers = list(ort.get_available_providers())
        print(f"providers: {', '.join(providers)}")
    except ProviderError as error:
        problems.insert(0, str(error))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        threads = get_num_threads() or "as ONNX Runtime chooses"
    except ValueError as error:
        problems.append(str(error))
        threads = "?"
    print(f"threads: {threads} within an operator; the process may use {cores} CPUs")
    print(f"CUDA: {cuda_finding(versions, providers, has_driver())}")
    for problem in problems:
        print(f"problem: {problem}")
    broken = not providers or any(versions[name] is None for name in _TO_TRAIN)
    print("training will not run here" if broken else "training runs here")
    return 1 if broken else 0


def missing_packages(versions: Mapping[str, str | None]) -> list[str]:
    """What is installed wrongly, or not at all."""
    found = []
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        found.append(
            "both onnxruntime and onnxruntime-gpu are installed; they share one module, so that "
            "the one installed last has overwritten the other, and removing either breaks both: "
            "`pip uninstall onnxruntime onnxruntime-gpu`, then install one"
        )
    absent = [name for name in (*_TO_TRAIN, *_TO_BUILD) if versions[name] is None]
    for name in absent:
        purpose = "train" if name in _TO_TRAIN else "build (not to train)"
        found.append(f"{name} is not installed, which is needed to {purpose}: pip install {name}")
    return found


def cuda_finding(versions: Mapping[str, str | None], providers: list[str], driver: bool) -> str:
    """Whether CUDA can be used, and else what is missing for it."""
    if "CUDAExecutionProvider" in providers:
        if not driver:
            return "ONNX Runtime is built for it, but no NVIDIA driver (libcuda) is found here"
        return f"available, {_tried()}"
    hint = "" if driver else "; no NVIDIA driver (libcuda) is found here either"
    if versions["onnxruntime-gpu"]:
        return f"onnxruntime-gpu is installed, but its files were overwritten or cannot load{hint}"
    return (
        "this onnxruntime is not built for it: `pip uninstall onnxruntime`, then `pip install "
        f"onnxruntime-gpu`{hint}"
    )


def has_driver() -> bool:
    """Whether NVIDIA's driver library can be loaded."""
    name = "nvcuda.dll" if os.name == "nt" else ctypes.util.find_library("cuda") or "libcuda.so.1"
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _tried() -> str:
    """Whether a session starts on CUDA, which needs its libraries (CUDA, cuDNN) too."""
    from onnxtape.runtime.errors import OnnxtapeRuntimeError
    from onnxtape.runtime.session import create_session

    try:
        create_session(_IDENTITY, "cuda")
    except OnnxtapeRuntimeError as error:
        return f"but it does not start: {error}"
    return "and it starts"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def _value(name: bytes) -> bytes:
    shape = _field(1, b"\x08\x01")  # one dimension, of size 1
    float_tensor = b"\x08\x01" + _field(2, shape)
    return _field(1, name) + _field(2, _field(1, float_tensor))


#: A model of one Identity, written by hand because the package onnx may be missing here.
_IDENTITY = (
    b"\x08\x0a"  # IR version 10
    + _field(8, b"\x10\x15")  # opset 21
    + _field(
        7,
        _field(1, _field(1, b"x") + _field(2, b"y") + _field(4, b"Identity"))
        + _field(2, b"identity")
        + _field(11, _value(b"x"))
        + _field(12, _value(b"y")),
    )
)
