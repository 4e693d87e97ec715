"""Provider names, and what is said when a provider is not there."""

from __future__ import annotations

import sys
from types import ModuleType

import onnxruntime
import pytest

from onnxtape.runtime.errors import ProviderError
from onnxtape.runtime.providers import load_onnxruntime, resolve_providers

CPU = ("CPUExecutionProvider", {})


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that says it was built with CUDA and TensorRT."""
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)


@pytest.mark.parametrize(
    "written", [None, [], "cpu", "CPU", ["cpu"], "CPUExecutionProvider", ("cpu", {})]
)
def test_cpu(written: object) -> None:
    assert resolve_providers(written) == [CPU]


@pytest.mark.parametrize("written", ["cuda:1", ["CUDA:1", "cpu"], ("cuda", {"device_id": 1})])
@pytest.mark.usefixtures("with_cuda")
def test_device_number(written: object) -> None:
    assert resolve_providers(written) == [("CUDAExecutionProvider", {"device_id": "1"}), CPU]


@pytest.mark.usefixtures("with_cuda")
def test_order_and_options_are_kept() -> None:
    written = [("tensorrt", {"trt_fp16_enable": True}), "gpu", "cpu"]
    assert resolve_providers(written) == [
        ("TensorrtExecutionProvider", {"trt_fp16_enable": "True"}),
        ("CUDAExecutionProvider", {}),
        CPU,
    ]


def test_two_names_are_not_a_pair() -> None:
    with pytest.raises(ProviderError, match="names CPUExecutionProvider twice; name it once"):
        resolve_providers(("cpu", "CPUExecutionProvider"))


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ProviderError, match=r"No execution provider is called 'tpu'.*cuda.*cpu"):
        resolve_providers("tpu")


def test_provider_that_is_not_installed_says_what_to_install() -> None:
    with pytest.raises(ProviderError) as caught:
        resolve_providers("cuda:0")
    message = str(caught.value)
    assert "CUDAExecutionProvider is not part of the onnxruntime" in message
    assert "CPUExecutionProvider" in message
    assert "pip install onnxtape[gpu]" in message


def test_other_provider_that_is_not_installed() -> None:
    with pytest.raises(ProviderError, match="needs the onnxruntime package that is built for it"):
        resolve_providers("coreml")


@pytest.mark.usefixtures("with_cuda")
@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("cpu:0", "'cpu:0' is not a device: write 'cpu', which takes no number"),
        ("cuda:x", "'cuda:x' is not a device: write 'cuda' or 'cuda:0'"),
        (("cuda:0", {"device_id": 1}), "'cuda:0' and the option device_id=1 disagree"),
        ([3], r"A provider is a name such as 'cpu' or 'cuda:0'.*got 3"),
    ],
)
def test_what_is_no_device(written: object, message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        resolve_providers(written)


def test_missing_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match=r"pip install onnxtape\[cpu\]"):
        resolve_providers("cpu")


def test_gutted_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(ProviderError, match=r"has no InferenceSession.*Uninstall both"):
        load_onnxruntime()
