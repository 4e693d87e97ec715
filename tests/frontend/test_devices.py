"""`ot.device`, `providers=`: where variables live and operations run.

Without a GPU the CPU stands in for one: a `Place` whose results are bound to its device takes every
way that CUDA takes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest

import onnxtape as ot
from onnxtape import compilation, devices
from onnxtape.devices import Place, Places
from onnxtape.errors import ExecutionError, ProviderError, ProviderFallbackWarning
from onnxtape.runtime import pinned, providers
from onnxtape.runtime.placement import CPU_PROVIDER

RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 8)


@pytest.fixture
def bound() -> Iterator[Place]:
    """The CPU as if it were a device of its own."""
    place = Place("cpu", bound=True)
    Places.default = place
    Places.use(place)
    assert Places.several
    yield place
    Places.reset()


def training() -> tuple[Callable[[Any, Any], Any], list[ot.Variable]]:
    """A step with every kind of state: weights, slots, a metric, a random stream, buffers."""
    ot.set_seed(1)
    model = ot.Sequential(
        [
            ot.layers.Dense(16, activation="relu"),
            ot.layers.BatchNormalization(),
            ot.layers.Dropout(0.3),
            ot.layers.Dense(3),
        ]
    )
    optimizer = ot.optimizers.Adam(1e-2)
    loss_of = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    mean = ot.metrics.Mean()

    def step(x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        mean.update_state(loss)
        return {"loss": loss, "mean": mean.result()}

    state = [*model.variables, *optimizer.variables, *mean.variables]
    step(X, Y)  # Everything is built now.
    return step, state or model.variables


def sequence(compiled: bool) -> list[float]:
    step, _ = training()
    run = ot.function(step) if compiled else step
    return [float(run(X, Y)["loss"]) for _ in range(6)]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_bound_device_trains_alike(bound: Place, compiled: bool) -> None:
    here = sequence(compiled)
    assert bound.executor.session_count > 0
    Places.reset()
    before = bound.executor.session_count
    assert sequence(compiled) == here
    assert bound.executor.session_count == before


def test_snapshots_and_copies_stay_what_they_were(bound: Place) -> None:
    v = ot.Variable([1.0, 2.0])
    step = ot.function(lambda: v.assign_add([1.0, 1.0]).value * 2.0)
    old = v.value
    np.testing.assert_array_equal(step().numpy(), [4, 6])
    np.testing.assert_array_equal(old.numpy(), [1, 2])
    v.assign(v.value * 10.0)
    v.assign(np.asarray([5, 6], np.float32))
    np.testing.assert_array_equal(step().numpy(), [12, 14])
    assert v.numpy().tolist() == [6, 7]


def test_bfloat16_on_a_bound_device(bound: Place) -> None:
    v = ot.Variable([1.5, -2.0], dtype="bfloat16")
    assert v.numpy().dtype.name == "bfloat16"
    assert ot.ops.cast(v.value, "float32").numpy().tolist() == [1.5, -2.0]


def test_operations_without_kernels_take_the_reference_way_there(bound: Place) -> None:
    x = ot.Tensor(np.full((1, 1, 3), 2.0))
    with pytest.warns(RuntimeWarning, match="no kernel for Conv"):
        made = ot.engine.B.op("Conv", x, x)
    assert made.dtype == x.dtype
    assert made.numpy().tolist() == [[[12]]]


def test_operations_on_bfloat16_are_computed_in_float32_there(bound: Place) -> None:
    x, y = (ot.Tensor(np.ones(shape), dtype="bfloat16") for shape in ((2, 3), (3, 2)))
    made = ot.ops.matmul(x, y)
    assert made.dtype == x.dtype
    assert made.numpy().astype(np.float32).tolist() == [[3, 3], [3, 3]]


def test_device_as_a_block_and_for_all() -> None:
    assert devices.current() is Places.cpu
    with ot.device("cpu") as entered, entered:
        assert devices.current().providers == "cpu"
        with ot.device("cpu", use_arena=1):
            assert devices.current().providers == ("cpu", {"use_arena": 1})
        v = ot.Variable(1.0)
    assert devices.current() is Places.cpu
    ot.set_default_device("cpu")
    assert devices.current() is devices.place_of("cpu")
    assert float(v + 1.0) == 2.0


def test_a_device_that_is_not_here_says_what_is_missing() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built for CUDA")
    for use in (lambda: ot.device("cuda:0"), lambda: ot.set_default_device("cuda")):
        with pytest.raises(ProviderError, match=r"CUDA.*cannot be used here.*pip install"):
            use()
    with pytest.raises(ProviderError, match="No execution provider is called 'tpu'"):
        ot.device("tpu")


def test_a_function_falls_back_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built for CUDA")
    monkeypatch.setattr(providers, "_left_out", set())
    double = ot.function(lambda x: x * 2.0, providers=["cuda", "cpu"])
    with pytest.warns(ProviderFallbackWarning, match="CUDAExecutionProvider cannot be") as caught:
        assert double(np.ones(2, np.float32)).numpy().tolist() == [2, 2]
    assert caught[0].filename == __file__
    assert double(np.ones((2, 2), np.float32)).shape == (2, 2)  # another trace, no warning
    with pytest.raises(ProviderError, match="CUDAExecutionProvider cannot be used here"):
        ot.function(lambda x: x * 2.0, providers="cuda")(np.ones(2, np.float32))


def test_placement_lists_every_node_with_its_line() -> None:
    step, _ = training()
    compiled = ot.function(step)
    compiled(X, Y)
    placed = compiled.get_concrete_function().placement()
    assert placed.providers == {CPU_PROVIDER: len(placed)}
    lines = {node.place.rpartition(":")[0] for node in placed if node.op_type == "Gemm"}
    assert lines == {"tests/frontend/test_devices.py"}
    assert str(placed).startswith(f"{CPU_PROVIDER}: {len(placed)} nodes (")


def test_a_provider_that_compiles_the_graph_itself_alternates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ONNX Runtime cannot write down what such a provider makes, so nothing can be ordered."""
    expected = sequence(compiled=True)
    real = compilation.create_session

    def compiling(model: Any, providers: Any, **options: Any) -> Any:
        if "optimized_path" in options:
            raise ExecutionError("Unable to serialize model as it contains compiled nodes.")
        return real(model, providers, **options)

    monkeypatch.setattr(compilation, "create_session", compiling)
    step, _ = training()
    compiled = ot.function(step)
    np.testing.assert_allclose(
        [float(compiled(X, Y)["loss"]) for _ in range(6)], expected, rtol=1e-6
    )
    assert compiled.get_concrete_function().in_place_count == 0


# DLPack ------------------------------------------------------------------------------------------


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("number", ctypes.c_int32))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.c_void_p),
        ("offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


@_Deleter
def _keep(managed: int) -> None:
    """The tests hold the memory."""


_kept: list[_Managed] = []


class OnTheGpu:
    """What PyTorch or CuPy would hand over: a float32 vector that says it is on the first GPU.

    Its address is one of the host's, which nobody may read while it is only passed on.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._shape = (ctypes.c_int64 * 1)(array.size)
        shape = ctypes.cast(self._shape, ctypes.POINTER(ctypes.c_int64))
        data = array.ctypes.data
        tensor = _Tensor(data, _Device(2, 0), 1, 2, 32, 1, shape, None, 0)
        self._managed = _Managed(tensor, None, _keep)
        _kept.append(self._managed)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError("can't convert a CUDA tensor to NumPy")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, **kwargs: Any) -> Any:
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self._managed), b"dltensor", None)


def test_a_tensor_on_the_gpu_is_taken_as_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "place_of", lambda name: Places.cpu)
    theirs = OnTheGpu(np.arange(3, dtype=np.float32))
    ours = ot.convert_to_tensor(theirs)
    assert (ours.shape, ours.dtype) == ((3,), "float32")
    assert ours._ort.data_ptr() == theirs.array.ctypes.data
    assert ours.__dlpack_device__() == (2, 0)
    seen = []
    monkeypatch.setattr(
        "onnxtape.concrete.ConcreteFunction.run", lambda self, values: seen.extend(values)
    )
    ot.function(lambda x: x * 2.0)(theirs)
    assert [value.data_ptr() for value in seen] == [theirs.array.ctypes.data]


def test_a_tensor_on_the_cpu_is_shared_as_before() -> None:
    tensor = ot.ops.ones((3,))
    assert tensor.__dlpack_device__() == (1, 0)
    np.testing.assert_array_equal(np.from_dlpack(tensor), [1, 1, 1])


# With a GPU --------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_cuda_trains_as_the_cpu_does(compiled: bool) -> None:
    here = sequence(compiled)
    with ot.device("cuda:0"):
        there = sequence(compiled)
    np.testing.assert_allclose(there, here, rtol=1e-3)


@pytest.mark.gpu
def test_state_lives_on_the_gpu_and_no_node_on_the_cpu() -> None:
    with ot.device("cuda:0"):
        step, state = training()
        compiled = ot.function(step)
        results = compiled(X, Y)
        assert {v._tensor._ort.device_name().lower() for v in state} == {"cuda"}
        assert {t._ort.device_name().lower() for t in results.values()} == {"cuda"}
        assert compiled.get_concrete_function().placement().on_cpu == []


@pytest.mark.gpu
def test_bfloat16_travels_to_the_gpu_and_back() -> None:
    with ot.device("cuda:0"):
        v = ot.Variable([1.5, -2.0], dtype="bfloat16")
        assert v.numpy().astype(np.float32).tolist() == [1.5, -2.0]


def test_pinned_batches_are_ordinary_arrays_on_the_cpu() -> None:
    batch = ot.data.empty_pinned((2, 3), "int64")
    assert (batch.shape, batch.dtype.name) == ((2, 3), "int64")
    assert ot.data.empty_pinned(4).dtype == np.float32
    batch[:] = 1
    assert int(ot.function(lambda x: ot.ops.sum(x))(batch)) == 6


def test_pinned_memory_needs_a_function_of_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "_MAKE", "absent")
    with pytest.raises(ProviderError, match=r"makes no pinned memory: install onnxruntime-gpu"):
        pinned.empty_pinned((2, 3), "float32", ("cuda", 0))
