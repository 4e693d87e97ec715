"""What is said where CUDA cannot be used: which piece is missing, and how to install it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from onnxtape.runtime import cuda_setup
from onnxtape.runtime.cuda_setup import cuda_problem, missing_libraries

WITH = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def onnxruntime(available: list[str], missing: list[str]) -> Any:
    """As much of the module as is asked, of a build for CUDA 13."""

    def preload_dlls() -> None:
        for name in missing:  # as onnxruntime 1.31 prints it
            print(f"Failed to load {name}: {name}: cannot open shared object file: No such file")
        print("Please follow https://onnxruntime.ai/docs/install/#cuda-and-cudnn to install CUDA.")

    return SimpleNamespace(
        __version__="1.31.1",
        cuda_version="13.0",
        get_available_providers=lambda: available,
        preload_dlls=preload_dlls,
        # `cuda_problem` remembers what it loaded for each module.
        __hash__=lambda self: id(self),
    )


class Module(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]


def module(available: list[str], missing: list[str]) -> Any:
    return Module(**vars(onnxruntime(available, missing)))


@pytest.fixture
def with_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_setup, "has_driver", lambda: True)


@pytest.mark.usefixtures("with_driver")
def test_nothing_is_missing() -> None:
    assert cuda_problem(module(WITH, [])) is None


@pytest.mark.usefixtures("with_driver")
def test_each_missing_library_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    problem = cuda_problem(module(WITH, ["libcublasLt.so.13", "libcudnn.so.9"]))
    assert problem is not None
    assert problem.startswith("libcublasLt.so.13, libcudnn.so.9 were not found: `pip install ")
    assert "CUDA 13.0" in problem
    assert "LD_LIBRARY_PATH" in problem
    assert capsys.readouterr().out == ""  # ONNX Runtime's own report is not shown


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_setup, "has_driver", lambda: False)
    problem = cuda_problem(module(WITH, []))
    assert problem is not None
    assert "no NVIDIA driver was found (libcuda)" in problem
    both = cuda_problem(module(WITH, ["libcudnn.so.9"]))
    assert both is not None
    assert both.startswith("libcudnn.so.9 was not found")
    assert both.endswith(problem)


def test_a_build_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_setup, "installed_version", {"onnxruntime": "1.31"}.get)
    problem = cuda_problem(module(["CPUExecutionProvider"], []))
    assert problem is not None
    assert "it is not part of the onnxruntime 1.31.1 installed here, which has CPU" in problem
    assert "install onnxtape with its `gpu` extra (pip install '.[gpu]' in a clone)" in problem


def test_both_packages_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_setup, "installed_version", lambda name: "1.31")
    problem = cuda_problem(module(["CPUExecutionProvider"], []))
    assert problem is not None
    assert "both onnxruntime and onnxruntime-gpu are installed" in problem
    assert "`pip uninstall onnxruntime onnxruntime-gpu`" in problem


def test_an_older_onnxruntime_cannot_preload() -> None:
    assert missing_libraries(SimpleNamespace()) == []
