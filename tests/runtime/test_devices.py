"""Values that move between devices; the CPU takes the way that every other device takes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from onnxtape.runtime import devices, providers
from onnxtape.runtime.devices import CPU, copy, device_of, fetch, input_devices, is_on, moved, put
from onnxtape.runtime.errors import ProviderError
from onnxtape.runtime.identity import identity_model
from onnxtape.runtime.session import create_session

DTYPES = [
    *(np.dtype(t) for t in ("float32", "float16", "float64", "bool")),
    *(np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)),
    np.dtype(ml_dtypes.bfloat16),
]


def test_the_hand_written_model_is_one() -> None:
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.BFLOAT16, None) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    model = onnx.load_from_string(identity_model(16))
    assert model.graph.SerializeToString() == graph.SerializeToString()
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 21)]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4)])
def test_a_copy_is_the_same_in_memory_of_its_own(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    value = put(array, CPU)
    twin = copy(value, CPU)
    assert is_on(twin, CPU)
    assert fetch(twin).dtype == dtype
    np.testing.assert_array_equal(fetch(twin), array)
    if array.size:
        assert twin.data_ptr() != value.data_ptr()


def test_a_copy_into_memory_that_is_there() -> None:
    target = put(np.zeros((2, 3), np.float32), CPU)
    where = target.data_ptr()
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert copy(put(array, CPU), CPU, into=target) is target
    assert target.data_ptr() == where
    np.testing.assert_array_equal(fetch(target), array)


def test_what_lies_there_already_stays() -> None:
    value = put(np.ones(3, np.float32), CPU)
    assert moved(value, CPU) is value


def test_where_a_session_reads_its_inputs() -> None:
    assert input_devices(create_session(identity_model(), "cpu")) == {"x": CPU}


def test_devices_of_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["CUDAExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(providers, "cuda_problem", lambda ort: None)
    monkeypatch.setattr(devices._Used, "numbers", {})
    assert device_of(None) == device_of("cpu") == CPU
    # Its memory is the host's.
    assert device_of("openvino") == CPU
    assert device_of(["cuda:1", "cpu"]) == device_of(("cuda", {"device_id": 1})) == ("cuda", 1)
    with pytest.raises(ProviderError, match="uses cuda:1 already and cannot use cuda:0 beside"):
        device_of("cuda:0")


@pytest.mark.parametrize(
    ("name", "kind"), [("Cpu", "cpu"), ("Cuda", "cuda"), ("gpu", "cuda"), ("DML", "dml")]
)
def test_names_of_memory(name: str, kind: str) -> None:
    assert devices.memory_kind(name) == kind
