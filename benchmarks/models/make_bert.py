"""Makes `bert.onnx`, the file that the workload `finetune` starts from.

    .venv-peers/bin/python -m benchmarks.models.make_bert

PyTorch's exporter writes transformers' BERT, in the workload's size, for batches of any size. What
is kept of that file is the graph: the weights are left empty, for the workload to fill in. A weight
that the exporter has transposed is called by its own name and ".T".
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from benchmarks.workloads import finetune

TARGET = Path(__file__).with_name("bert.onnx")


def main() -> None:
    """Export, take the weights out, and write what is left."""
    problem = finetune.problem()
    model = finetune.torch_model(problem).eval()
    ids, mask, _ = (torch.from_numpy(part) for part in problem.batches[0])
    batch = torch.export.Dim("batch")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bert.onnx"
        torch.onnx.export(
            model,
            (ids, mask),
            path,
            dynamo=True,
            opset_version=20,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": {0: batch}, "attention_mask": {0: batch}},
        )
        exported = onnx.load(path)
    empty_weights(exported, dict(zip(finetune.names(), problem.weights, strict=True)))
    for node in exported.graph.node:
        del node.metadata_props[:]
    del exported.graph.value_info[:], exported.functions[:]
    exported.graph.ClearField("metadata_props")
    onnx.save(exported, TARGET)


def empty_weights(model: onnx.ModelProto, weights: dict[str, finetune.Array]) -> None:
    """Give each weight its name, and take its numbers away.

    Raises:
        ValueError: a weight is not there, or the exporter has made something else of it.
    """
    missing = dict(weights)
    for initializer in model.graph.initializer:
        value = numpy_helper.to_array(initializer)
        for name, weight in missing.items():
            same = np.array_equal(value, weight)
            if same or np.array_equal(value, weight.T):
                missing.pop(name)
                _rename(model.graph, initializer.name, name if same else f"{name}.T")
                initializer.ClearField("raw_data")
                initializer.ClearField("data_location")
                break
    if missing:
        raise ValueError(f"the exported graph has no {', '.join(missing)}")


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for initializer in graph.initializer:
        if initializer.name == old:
            initializer.name = new
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


if __name__ == "__main__":
    main()
