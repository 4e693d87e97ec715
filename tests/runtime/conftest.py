"""A small artifact written by hand, with NumPy as its oracle."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxtape.runtime.artifact import Artifact, InferenceGraph, write_artifact
from onnxtape.runtime.manifest import StateEntry, TensorEntry

OPSET = 21
IR_VERSION = 10
MOMENTUM = np.float32(0.9)

State = dict[str, NDArray[Any]]


def make_model(
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, int, list[int | str] | None]],
    outputs: list[tuple[str, int, list[int | str] | None]],
    constants: dict[str, NDArray[Any]] | None = None,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return model.SerializeToString()


class Regression:
    """Linear regression on 4 features: mean squared error, SGD with momentum.

    Its state has an entry of every kind: parameters, momenta, a learning rate that steps only
    read, a step counter, and a generator's key and counter of which only the counter changes.
    """

    inputs = (
        TensorEntry("x", "float32", ("batch", 4)),
        TensorEntry("y", "float32", ("batch", 1)),
    )
    outputs = (
        TensorEntry("loss", "float32", ()),
        TensorEntry("prediction", "float32", ("batch", 1)),
    )
    entries = (
        StateEntry("kernel", "kernel", "kernel_new", "float32", (4, 1), "parameter"),
        StateEntry("bias", "bias", "bias_new", "float32", (1,), "parameter"),
        StateEntry("kernel/m", "kernel_m", "kernel_m_new", "float32", (4, 1), "optimizer"),
        StateEntry("bias/m", "bias_m", "bias_m_new", "float32", (1,), "optimizer"),
        StateEntry("learning_rate", "learning_rate", None, "float32", (), "optimizer"),
        StateEntry("iterations", "iterations", "iterations_new", "int64", (), "optimizer"),
        StateEntry("generator", "generator", "generator_new", "uint64", (2,), "generator"),
    )
    inference_inputs = inputs[:1]
    inference_outputs = (TensorEntry("prediction", "float32", ("batch", 1)),)

    def initial_state(self) -> State:
        return {
            "kernel": np.full((4, 1), 0.5, np.float32),
            "bias": np.zeros(1, np.float32),
            "kernel/m": np.zeros((4, 1), np.float32),
            "bias/m": np.zeros(1, np.float32),
            "learning_rate": np.array(0.1, np.float32),
            "iterations": np.array(0, np.int64),
            "generator": np.array([2**63 + 5, 0], np.uint64),
        }

    def training_model(self) -> bytes:
        node = helper.make_node
        nodes = [
            node("Gemm", ["x", "kernel", "bias"], ["prediction"]),
            node("Sub", ["prediction", "y"], ["error"]),
            node("Mul", ["error", "error"], ["squared"]),
            node("ReduceMean", ["squared"], ["loss"], keepdims=0),
            node("Size", ["y"], ["count"]),
            node("Cast", ["count"], ["count_float"], to=TensorProto.FLOAT),
            node("Div", ["two", "count_float"], ["scale"]),
            node("Mul", ["error", "scale"], ["d_prediction"]),
            node("Gemm", ["x", "d_prediction"], ["d_kernel"], transA=1),
            node("ReduceSum", ["d_prediction", "rows"], ["d_bias"], keepdims=0),
        ]
        for name in ("kernel", "bias"):
            nodes += [
                node("Mul", [f"{name}_m", "momentum"], [f"{name}_decayed"]),
                node("Add", [f"{name}_decayed", f"d_{name}"], [f"{name}_m_new"]),
                node("Mul", ["learning_rate", f"{name}_m_new"], [f"{name}_update"]),
                node("Sub", [name, f"{name}_update"], [f"{name}_new"]),
            ]
        nodes += [
            node("Add", ["iterations", "one"], ["iterations_new"]),
            node("Add", ["generator", "tick"], ["generator_new"]),
        ]
        types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
        types["uint64"] = TensorProto.UINT64
        constants = {
            "two": np.array(2, np.float32),
            "rows": np.array([0], np.int64),
            "momentum": np.array(MOMENTUM),
            "one": np.array(1, np.int64),
            "tick": np.array([0, 1], np.uint64),
        }
        return make_model(
            nodes,
            [(e.name, types[e.dtype], list(e.shape)) for e in self.inputs]
            + [(e.input, types[e.dtype], list(e.shape)) for e in self.entries],
            [(e.name, types[e.dtype], list(e.shape)) for e in self.outputs]
            + [(e.output, types[e.dtype], list(e.shape)) for e in self.entries if e.output],
            constants,
        )

    def inference_model(self) -> bytes:
        node = helper.make_node("Gemm", ["x", "kernel", "bias"], ["prediction"])
        return make_model(
            [node],
            [
                ("kernel", TensorProto.FLOAT, [4, 1]),
                ("x", TensorProto.FLOAT, ["batch", 4]),
                ("bias", TensorProto.FLOAT, [1]),
            ],
            [("prediction", TensorProto.FLOAT, ["batch", 1])],
        )

    def write(self, path: Path, **changed: Any) -> Artifact:
        """Write the artifact, with some arguments of `write_artifact` changed."""
        arguments = {
            "training": self.training_model(),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "state_entries": self.entries,
            "state": self.initial_state(),
            "opset": OPSET,
            "inference": InferenceGraph(
                self.inference_model(), self.inference_inputs, self.inference_outputs
            ),
        }
        return write_artifact(path, **{**arguments, **changed})

    def batch(self, size: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
        random = np.random.default_rng(seed)
        x = random.standard_normal((size, 4), dtype=np.float32)
        return {"x": x, "y": x @ np.float32([[1], [-2], [3], [0.5]]) + np.float32(0.25)}

    def oracle(
        self, state: State, x: NDArray[np.float32], y: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], State]:
        """The results and the new state of one step, in NumPy."""
        prediction = x @ state["kernel"] + state["bias"]
        error = prediction - y
        gradients = {
            "kernel": x.T @ error * np.float32(2 / len(x)),
            "bias": error.sum(0) * np.float32(2 / len(x)),
        }
        new = dict(state)
        for name, gradient in gradients.items():
            new[f"{name}/m"] = MOMENTUM * state[f"{name}/m"] + gradient
            new[name] = state[name] - state["learning_rate"] * new[f"{name}/m"]
        new["iterations"] = state["iterations"] + 1
        new["generator"] = state["generator"] + np.array([0, 1], np.uint64)
        return {"loss": np.mean(error**2), "prediction": prediction}, new


@pytest.fixture
def regression() -> Regression:
    return Regression()


@pytest.fixture
def artifact_path(tmp_path: Path, regression: Regression) -> Path:
    return regression.write(tmp_path / "artifact").path


@pytest.fixture
def model_builder() -> Callable[..., bytes]:
    return make_model


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Run a program in a process of its own and return what it printed."""

    def run(program: str, *arguments: object) -> str:
        finished = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


_BLOCKED = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name in ("onnx", "onnx_ir", "onnxtape.compiler", "sympy", "networkx"):
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def run_runtime_alone(run_python: Callable[..., str]) -> Callable[..., str]:
    """`run_python`, where the compiler, and what it is made with, cannot be imported."""

    def run(program: str, *arguments: object) -> str:
        return run_python(textwrap.dedent(_BLOCKED) + textwrap.dedent(program), *arguments)

    return run
