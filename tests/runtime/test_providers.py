"""Provider names, and what is said when a provider is not there."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import onnxruntime
import pytest

from onnxtape.runtime import providers
from onnxtape.runtime.errors import ProviderError, ProviderFallbackWarning
from onnxtape.runtime.identity import identity_model
from onnxtape.runtime.providers import load_onnxruntime, resolve_providers
from onnxtape.runtime.session import create_session

CPU = ("CPUExecutionProvider", {})


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that says it was built with CUDA and TensorRT, and can load both."""
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(providers, "cuda_problem", lambda ort: None)


@pytest.fixture(autouse=True)
def _nothing_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_left_out", set())


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


def test_provider_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError) as caught:
        resolve_providers("cuda:0")
    message = str(caught.value)
    assert message.startswith("CUDAExecutionProvider cannot be used here: it is not part of the")
    assert "CPUExecutionProvider" in message
    assert "install onnxtape with its `gpu` extra (pip install '.[gpu]' in a clone)" in message


def test_other_provider_that_is_not_installed() -> None:
    with pytest.raises(
        ProviderError, match="needs the onnxruntime package that is built for it, or its plugin"
    ):
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


def test_the_next_provider_is_taken_with_one_warning() -> None:
    with pytest.warns(ProviderFallbackWarning, match="CoreMLExecutionProvider cannot") as caught:
        assert resolve_providers(["coreml", "cpu"]) == [CPU]
    assert caught[0].filename == __file__
    assert resolve_providers(["coreml", "cpu"]) == [CPU]  # warnings are errors here
    assert resolve_providers([("coreml", {"option": 1}), "cpu"]) == [CPU]


def test_the_last_provider_has_none_to_fall_back_on() -> None:
    with (
        pytest.warns(ProviderFallbackWarning, match="CoreML"),
        pytest.raises(ProviderError, match="XnnpackExecutionProvider cannot be used here"),
    ):
        resolve_providers(["coreml", "xnnpack"])


def test_a_session_may_do_without_a_provider_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ONNX Runtime then opens the session with the others, and leaves saying so to us."""
    names = ["XnnpackExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    real = onnxruntime.InferenceSession

    def leaving_out(source: Any, options: Any, providers: Any, **rest: Any) -> Any:
        return real(source, options, providers=["CPUExecutionProvider"], **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", leaving_out)
    with pytest.raises(ProviderError, match=r"Xnnpack.*here: it could not be started"):
        create_session(identity_model(), "xnnpack")
    with pytest.warns(ProviderFallbackWarning, match=r"Xnnpack.*could not be started"):
        create_session(identity_model(), ["xnnpack", "cpu"])
    create_session(identity_model(), ["xnnpack", "cpu"])


class FakeDevice:
    """What `onnxruntime.get_ep_devices` lists for a library that was registered."""

    def __init__(self, ep_name: str) -> None:
        self.ep_name = ep_name


def test_providers_of_registered_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's own device stands for that of a plugin: ONNX Runtime takes it in the same way."""
    (cpu,) = (d for d in onnxruntime.get_ep_devices() if d.ep_name == "CPUExecutionProvider")
    plugin = FakeDevice("NeuralExecutionProvider")
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [cpu, plugin])
    assert resolve_providers(("neural", {"speed": 2})) == [
        ("NeuralExecutionProvider", {"speed": "2"}),
        CPU,
    ]
    given = []
    real = onnxruntime.SessionOptions.add_provider_for_devices

    def add(options: Any, devices: Any, rest: dict[str, str]) -> None:
        given.append((devices, rest))
        real(options, [cpu], {})

    monkeypatch.setattr(onnxruntime.SessionOptions, "add_provider_for_devices", add)
    with pytest.raises(ProviderError, match=r"Neural.*could not be started"):
        create_session(identity_model(), ("neural", {"speed": 2}))
    with pytest.warns(ProviderFallbackWarning, match="Neural"):
        session = create_session(identity_model(), [("neural", {"device_id": 0}), "cpu"])
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert given == [([plugin], {"speed": "2"}), ([plugin], {})]
    with pytest.raises(ProviderError, match="has 1 devices here, none with number 3"):
        create_session(identity_model(), ("neural", {"device_id": 3}))


def test_missing_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ProviderError, match=r"pip install onnxruntime`; for CUDA: install onnxtape"
    ):
        resolve_providers("cpu")


def test_gutted_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(ProviderError, match=r"has no InferenceSession.*Uninstall both"):
        load_onnxruntime()
