"""Fine-tune an ONNX model without the framework that made it.

Makes a classifier of the digits 0 to 4 and writes it as an ONNX file: a stand-in for a model from
anywhere. Then teaches that file the digits 5 to 9, in two ways: with a new head on a frozen layer,
and with low-rank adapters (LoRA), merged into the file again. Gradients are clipped and accumulated
over two batches, and the weights averaged (EMA): all of that is in the one ONNX graph.

    pip install '.[examples]' && python examples/finetune_onnx.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import sklearn.datasets

import onnxtape as ot

Data = tuple[Any, Any]  # images (n, 64), float32 from 0 to 1, and labels (n,), int64 from 0 to 4


def load_digits(first: int) -> tuple[Data, Data]:
    """Five digits, to train on and to test on."""
    digits = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    order = order[(digits.target[order] >= first) & (digits.target[order] < first + 5)]
    x, y = (digits.data[order] / 16).astype("float32"), (digits.target[order] - first)
    return (x[:-200], y[:-200]), (x[-200:], y[-200:])


def train(model: Any, data: Data, epochs: int) -> None:
    """Train what is trainable."""
    loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = ot.optimizers.AdamW(
        2e-2, global_clipnorm=1.0, gradient_accumulation_steps=2, use_ema=True, ema_momentum=0.95
    )
    variables = model.trainable_variables

    @ot.function
    def step(x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, variables), variables)

    batches = ot.data.Dataset.from_tensor_slices(data).shuffle(len(data[0])).batch(32)
    for _ in range(epochs):
        for x, y in batches:
            step(x, y)
    optimizer.finalize_variable_values(variables)  # the averages


def accuracy(logits: Any, labels: Any) -> float:
    return float(np.mean(np.asarray(logits).argmax(axis=1) == labels))


def run_file(path: Path, x: Any) -> Any:
    """What ONNX Runtime makes of a file, without onnxtape."""
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def make_model(path: Path, data: Data, epochs: int) -> None:
    """A classifier, written as one ONNX file."""
    inputs = ot.Input(shape=(64,), name="pixels")
    hidden = ot.layers.Dense(48, activation="relu", name="body")(inputs)
    hidden = ot.layers.Dense(32, activation="relu", name="neck")(hidden)
    model = ot.Model(inputs, ot.layers.Dense(5, name="head")(hidden))
    train(model, data, epochs)
    artifact = path.with_name("artifact")
    ot.function(model).export(artifact, ot.TensorSpec((None, 64)), model=model)
    ot.TrainingSession(artifact).export_inference(path)


def with_new_head(path: Path, data: Data, test: Data, epochs: int) -> float:
    """Freeze the file's layers up to the first Relu, and train new ones on top of them."""
    relus = [node for node in onnx.load(path).graph.node if node.op_type == "Relu"]
    body = ot.load_onnx(path, trainable=[]).truncate(relus[0].output[0])
    head = ot.Sequential([ot.layers.Dense(32, activation="relu"), ot.layers.Dense(5)])
    model = ot.Model(inputs := ot.Input(shape=(64,)), head(body(inputs)))
    train(model, data, epochs)
    return accuracy(model(test[0]), test[1])


def with_lora(path: Path, data: Data, test: Data, epochs: int) -> float:
    """Adapt all matrices by products of rank 4, and write the file with the sums."""
    model = ot.load_onnx(path)
    adapted = model.add_lora("*kernel", rank=4, alpha=8)
    count = sum(v.size for v in model.trainable_variables)
    print(f"adapters of {', '.join(adapted)}: {count} of {model.count_params()} parameters")
    train(model, data, epochs)
    tuned = model.save_onnx(path.with_name("tuned.onnx"))
    return accuracy(run_file(tuned, test[0]), test[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune an ONNX model.")
    parser.add_argument("--epochs", type=int, default=15, metavar="N", help="default: 15")
    epochs = parser.parse_args().epochs
    ot.set_seed(0)
    (old, old_test), (new, new_test) = load_digits(0), load_digits(5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.onnx"
        make_model(path, old, epochs)
        print(f"digits 0 to 4: accuracy {accuracy(run_file(path, old_test[0]), old_test[1]):.3f}")
        before = accuracy(run_file(path, new_test[0]), new_test[1])
        print(f"digits 5 to 9, before: accuracy {before:.3f}")
        for name, tune in (("a new head", with_new_head), ("LoRA", with_lora)):
            found = tune(path, new, new_test, epochs)
            print(f"digits 5 to 9, with {name}: accuracy {found:.3f}")


if __name__ == "__main__":
    main()
