"""What the tests of the command line share: a small model, data for it, and a way to run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxtape.cli import main

RNG = np.random.default_rng(0)
W1 = RNG.normal(size=(4, 8)).astype("f")
B1 = RNG.normal(size=8).astype("f")
HEAD = RNG.normal(size=(8, 3)).astype("f")
X = RNG.normal(size=(50, 4)).astype("f")
Y = (X[:, 0] > 0).astype("int64") + (X[:, 1] > 0)


def classifier(
    *, batch: int | str = "batch", last: str | None = None, outputs: tuple[str, ...] = ("logits",)
) -> onnx.ModelProto:
    """Two matrix products with Relu and Dropout between; `last` is an operator at the end."""
    end = "logits" if last is None else "scores"
    nodes = [
        helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("Dropout", ["a"], ["d"]),
        helper.make_node("MatMul", ["d", "head.weight"], [end]),
    ]
    if last is not None:
        nodes.append(helper.make_node(last, ["scores"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        [
            numpy_helper.from_array(array, name)
            for name, array in (("fc1.weight", W1), ("fc1.bias", B1), ("head.weight", HEAD))
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@dataclass
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    def succeeded(self) -> str:
        """Its output, where it went well."""
        assert (self.status, self.err) == (0, "")
        return self.out

    def refused(self, status: int = 1) -> str:
        """The one sentence, where it was refused."""
        assert self.status == status, (self.out, self.err)
        assert self.err.startswith("onnxtape: ")
        assert self.err.count("\n") == 1
        return self.err.removeprefix("onnxtape: ").strip()


class Place:
    """A folder with a model and data, to run commands in."""

    def __init__(self, folder: Path, read: Callable[[], Any]) -> None:
        self.folder = folder
        self._read = read
        self.data(train={"x": X[:40], "target": Y[:40]}, valid={"x": X[40:], "target": Y[40:]})
        self.model("net.onnx", classifier())

    def model(self, name: str, proto: onnx.ModelProto) -> None:
        """Write a model."""
        (self.folder / name).write_bytes(proto.SerializeToString())

    def data(self, **files: dict[str, Any]) -> None:
        """Write .npz files."""
        for name, arrays in files.items():
            np.savez(self.folder / f"{name}.npz", **arrays)

    def run(self, *arguments: str) -> Ended:
        """Run a command in this process; paths are those in the folder."""
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as end:  # argparse
            status = int(end.code or 0)
        captured = self._read()
        return Ended(status, captured.out, captured.err)

    def build(self, *arguments: str, model: str = "net.onnx") -> Ended:
        """Build `artifact` with a few defaults, over an earlier one."""
        given = list(arguments)
        if "--loss" not in given:
            given += ["--loss", "cross_entropy"]
        return self.run("build", model, "-o", "artifact", "--force", *given)

    def train(self, *arguments: str, data: str = "train.npz") -> Ended:
        """Train `artifact`."""
        return self.run("train", "artifact", "--data", data, *arguments)
