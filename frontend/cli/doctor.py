"""`onnxtape doctor`: what is installed here, what runs on it, and what is missing."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Mapping
from typing import Any

from onnxtape.cli.output import print_table
from onnxtape.requirements import TO_BUILD, TO_TRAIN
from onnxtape.runtime.cuda_setup import both_packages, cuda_problem, installed_version
from onnxtape.runtime.errors import OnnxtapeRuntimeError, ProviderError
from onnxtape.runtime.identity import identity_model
from onnxtape.runtime.providers import load_onnxruntime
from onnxtape.runtime.session import create_session, get_num_threads

_PACKAGES = (
    "onnxtape",
    "onnxruntime",
    "onnxruntime-gpu",
    *TO_TRAIN,
    *TO_BUILD,
    "rich",
    "torch",
    "keras",
)


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
    versions = {name: installed_version(name) for name in _PACKAGES}
    rows = [("python", f"{platform.python_version()} on {platform.platform()}")]
    rows += [(name, version or "not installed") for name, version in versions.items()]
    print_table("Versions", ("package", "version"), rows)
    problems = list(missing_packages(versions))
    providers: list[str] = []
    ort = None
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
    print(f"CUDA: {cuda_finding(ort)}")
    for problem in problems:
        print(f"problem: {problem}")
    broken = not providers or any(versions[name] is None for name in TO_TRAIN)
    print("training will not run here" if broken else "training runs here")
    return 1 if broken else 0


def missing_packages(versions: Mapping[str, str | None]) -> list[str]:
    """What is installed wrongly, or not at all."""
    found = []
    if both := both_packages():
        found.append(both)
    absent = [name for name in (*TO_TRAIN, *TO_BUILD) if versions[name] is None]
    for name in absent:
        purpose = "train" if name in TO_TRAIN else "build (not to train)"
        found.append(f"{name} is not installed, which is needed to {purpose}: pip install {name}")
    return found


def cuda_finding(ort: Any) -> str:
    """Whether CUDA can be used, and else what is missing for it and how to install that.

    Args:
        ort: the module onnxruntime; None where it cannot be imported.
    """
    if ort is None:
        return "not available without onnxruntime"
    if problem := cuda_problem(ort):
        return f"not available: {problem}"
    try:
        create_session(identity_model(), "cuda")
    except OnnxtapeRuntimeError as error:
        return f"its libraries are here, but it does not start: {error}"
    return "available, and it starts"
