"""Opening sessions: options, threads, memory, and readable errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxtape.runtime.errors import ExecutionError, ProviderError
from onnxtape.runtime.session import (
    _require_providers,
    create_session,
    get_num_threads,
    set_num_threads,
    useful_sentence,
)

FLOAT = TensorProto.FLOAT
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

# Opens sessions on `a + b`, and counts this process's threads.
PREPARE = """
    import os, sys
    import numpy as np, onnxruntime
    from onnxtape.runtime.session import create_session
    model = open(sys.argv[1], "rb").read()
    threads = lambda: len(os.listdir("/proc/self/task"))
    before = threads()
"""


@pytest.fixture
def add_model(model_builder: Callable[..., bytes]) -> bytes:
    return model_builder(
        [helper.make_node("Add", ["a", "b"], ["c"])],
        [("a", FLOAT, None), ("b", FLOAT, None)],
        [("c", FLOAT, None)],
    )


@pytest.fixture
def add_file(tmp_path: Path, add_model: bytes) -> Path:
    path = tmp_path / "add.onnx"
    path.write_bytes(add_model)
    return path


def test_model_from_bytes_and_path(add_model: bytes, add_file: Path) -> None:
    one = np.ones(3, np.float32)
    for model in (add_model, add_file, str(add_file)):
        (result,) = create_session(model).run(None, {"a": one, "b": one})
        np.testing.assert_array_equal(result, [2, 2, 2])


def test_options(add_model: bytes, tmp_path: Path) -> None:
    optimized = tmp_path / "optimized.onnx"
    session = create_session(
        add_model,
        in_order=True,
        optimize=False,
        threads=1,
        spin=False,
        optimized_path=optimized,
        profile_prefix=str(tmp_path / "profile"),
    )
    options = session.get_session_options()
    assert options.execution_order == onnxruntime.ExecutionOrder.PRIORITY_BASED
    level = options.graph_optimization_level
    assert level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.dynamic_block_base") == "1"
    assert optimized.stat().st_size > 0
    session.run(None, {"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)})
    profile = Path(session.end_profiling())
    assert profile.parent == tmp_path
    assert "Add" in profile.read_text()


def test_default_order_and_optimization(add_model: bytes) -> None:
    options = create_session(add_model).get_session_options()
    assert options.execution_order == onnxruntime.ExecutionOrder.DEFAULT
    level = options.graph_optimization_level
    assert level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_number_of_threads(add_model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXTAPE_NUM_THREADS", "3")
    assert create_session(add_model).get_session_options().intra_op_num_threads == 3
    set_num_threads(2)
    try:
        assert create_session(add_model).get_session_options().intra_op_num_threads == 2
        with pytest.raises(ValueError, match="at least 1, got 0"):
            set_num_threads(0)
    finally:
        set_num_threads(None)
    assert get_num_threads() == 3
    for wrong in ("many", "0", "-1"):
        monkeypatch.setenv("ONNXTAPE_NUM_THREADS", wrong)
        with pytest.raises(ValueError, match=f"ONNXTAPE_NUM_THREADS.*got '{wrong}'"):
            get_num_threads()


@needs_proc
def test_one_thread_makes_no_threads(add_file: Path, run_python: Callable[..., str]) -> None:
    program = (
        PREPARE
        + """
    sessions = [create_session(model, threads=1) for _ in range(50)]
    print(threads() - before)
    pool = create_session(model, threads=3)
    print(threads() - before)
    """
    )
    assert run_python(program, add_file).split() == ["0", "2"]


@needs_proc
def test_the_programs_own_global_pool_is_used(
    add_file: Path, run_python: Callable[..., str]
) -> None:
    program = (
        PREPARE
        + """
    onnxruntime.set_global_thread_pool_sizes(2, 1)
    before = threads()
    sessions = [create_session(model, threads=3) for _ in range(5)]
    one = np.ones(2, np.float32)
    print(threads() - before, sessions[4].run(None, {"a": one, "b": one})[0])
    """
    )
    assert run_python(program, add_file) == "0 [2. 2.]\n"


@needs_proc
def test_shared_arena_is_one_arena(add_file: Path, run_python: Callable[..., str]) -> None:
    program = (
        PREPARE
        + """
    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    big = np.ones(4 << 20, np.float32)  # 16 MiB
    sessions = [create_session(model, threads=1, shared_arena=True) for _ in range(20)]
    start = resident()
    for session in sessions:
        session.run(None, {"a": big, "b": big})
    print((resident() - start) >> 20)
    """
    )
    grown = int(run_python(program, add_file))
    assert grown < 100, f"20 sessions kept {grown} MiB after making 16 MiB each"


def test_a_refused_model_is_one_short_error(
    model_builder: Callable[..., bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    node = helper.make_node("Foo", ["a"], ["c"])
    model = model_builder([node], [("a", FLOAT, [2])], [("c", FLOAT, [2])])
    with pytest.raises(ExecutionError) as caught:
        create_session(model)
    assert str(caught.value).startswith("ONNX Runtime cannot load this graph: This is an invalid")
    assert "No Op registered for Foo" in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_garbage_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="protobuf parsing failed"):
        create_session(b"garbage")
    with pytest.raises(ExecutionError, match="File doesn't exist"):
        create_session(tmp_path / "none.onnx")


def test_a_provider_that_did_not_start_is_an_error() -> None:
    session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    resolved = [("CUDAExecutionProvider", {}), ("CPUExecutionProvider", {})]
    with pytest.raises(ProviderError, match=r"CUDA.*cannot be used here: it could not be started"):
        _require_providers(session, resolved, "cuda")


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Add node. "
            "Name:'aa' Status Message: /src/core/element_wise_ops.h:563 void onnxruntime::"
            "BroadcastIterator::Init(ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest was false. "
            "Attempting to broadcast an axis by a dimension other than 1. 3 by 4\n",
            "Add node 'aa': Attempting to broadcast an axis by a dimension other than 1. 3 by 4",
        ),
        (
            "Error in execution: Non-zero status code returned while running Gather node. Name:'' "
            "Status Message: indices element out of data bounds, idx=7",
            "Gather node: indices element out of data bounds, idx=7",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : /src/model.cc:256 onnxruntime::Model::Model(onnx::"
            "ModelProto&&, const logging::Logger&, std::function<void(int)>) Unsupported model IR "
            "version: 99, max supported IR version: 14\n\n",
            "Unsupported model IR version: 99, max supported IR version: 14",
        ),
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid rank for input: x Got: 2",
            "Invalid rank for input: x Got: 2",
        ),
        ("plain words", "plain words"),
        ("long " * 200, ("long " * 80).rstrip() + " ..."),
    ],
)
def test_useful_sentence(message: str, sentence: str) -> None:
    assert useful_sentence(message) == sentence
