"""Handwritten digits: a training loop from scratch, its step run in three ways.

The model and the loop are those of Keras's guide "Writing a training loop from scratch".

    python examples/mnist_mlp.py                     scikit-learn's 1,797 digits of 8x8 pixels
    python examples/mnist_mlp.py --mode all          train in all three ways, and compare
    python examples/mnist_mlp.py --data mnist.npz    MNIST, in the file that Keras downloads
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

import onnxtape as ot
from onnxtape import layers

INSTALL = 'pip install "onnxtape[examples]"'


def make_model(pixels: int) -> ot.Model:
    inputs = ot.Input(shape=(pixels,), name="digits")
    x = layers.Dense(64, activation="relu", name="dense_1")(inputs)
    x = layers.Dense(64, activation="relu", name="dense_2")(x)
    # No softmax: the loss takes the logits, which is more accurate for very (un)likely classes.
    outputs = layers.Dense(10, name="predictions")(x)
    return ot.Model(inputs, outputs, name="mnist_mlp")


# The three ways -----------------------------------------------------------------------------------


class Eager:
    """Plain Python: each operation runs as it is reached. Slow, and easy to look into."""

    def __init__(self, pixels: int, folder: Path) -> None:
        self.model = make_model(pixels)
        self.optimizer = ot.optimizers.Adam(learning_rate=1e-3)
        self.loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.train_accuracy = ot.metrics.SparseCategoricalAccuracy(name="train_accuracy")
        self.test_accuracy = ot.metrics.SparseCategoricalAccuracy(name="test_accuracy")

    def train_step(self, x: Any, y: Any) -> dict[str, Any]:
        # The tape watches the forward pass, to go back through it for the gradients.
        with ot.GradientTape() as tape:
            logits = self.model(x, training=True)
            loss = self.loss_fn(y, logits)
        gradients = tape.gradient(loss, self.model.trainable_weights)
        self.optimizer.apply(gradients, self.model.trainable_weights)
        self.train_accuracy.update_state(y, logits)
        return {"loss": loss, "accuracy": self.train_accuracy.result()}

    def test_step(self, x: Any, y: Any) -> None:
        self.test_accuracy.update_state(y, self.model(x, training=False))

    def start_epoch(self) -> None:
        self.train_accuracy.reset_state()

    def evaluate(self, images: Any, labels: Any) -> float:
        self.test_accuracy.reset_state()
        for x, y in ot.data.Dataset.from_tensor_slices((images, labels)).batch(256):
            self.test_step(x, y)
        return float(self.test_accuracy.result())

    def predict(self, images: Any) -> Any:
        return self.model(images, training=False).numpy()


class Compiled(Eager):
    """The same two steps, each one ONNX graph, traced when it is first called.

    Forward pass, gradients, Adam and metric are all in the graph, so a step is a single call. Above
    a function of your own, write it as the guide does: `@ot.function`.
    """

    train_step = ot.function(Eager.train_step)
    test_step = ot.function(Eager.test_step)


class Artifact:
    """The compiled step in a folder, from which ONNX Runtime trains, here or anywhere else."""

    def __init__(self, pixels: int, folder: Path) -> None:
        # This part is for whoever makes the model. None stands for batches of any size.
        author = Compiled(pixels, folder)
        batch = ot.TensorSpec((None, pixels)), ot.TensorSpec((None,), "int64")
        author.train_step.export(folder / "artifact", *batch, model=author.model)
        # From here on there is only the folder. The session keeps weights, moments and metric.
        self.session = ot.TrainingSession(folder / "artifact")
        self.trained = folder / "trained.onnx"

    def train_step(self, x: Any, y: Any) -> dict[str, Any]:
        return self.session.step(x=x, y=y)

    def start_epoch(self) -> None:
        for entry in self.session.state:
            if entry.role == "metric":
                self.session.set_state(entry.name, 0.0)

    def evaluate(self, images: Any, labels: Any) -> float:
        return float(np.mean(self.predict(images).argmax(axis=1) == labels))

    def predict(self, images: Any) -> Any:
        import onnxruntime  # all that the file with the trained model needs

        self.session.export_inference(self.trained)
        return onnxruntime.InferenceSession(self.trained).run(None, {"digits": images})[0]


WAYS: dict[str, Callable[[int, Path], Any]] = {
    "eager": Eager,
    "compiled": Compiled,
    "artifact": Artifact,
}


# The loop -----------------------------------------------------------------------------------------


@dataclass
class Data:
    """Images and labels of each split: pixels in [0, 1], float32 (n, height * width); int64 (n,)."""

    train: tuple[Any, Any]
    validation: tuple[Any, Any]
    test: tuple[Any, Any]
    image_shape: tuple[int, int]


@dataclass
class Run:
    """One training: the loss and the time of each step, and what the model says of the test set."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    test_logits: Any = None


def train(way: str, data: Data, epochs: int, batch_size: int, seed: int, folder: Path) -> Run:
    # It decides the first weights and the order of the batches: every run gives the same numbers.
    ot.set_seed(seed)
    images, labels = data.train
    trainer = WAYS[way](images.shape[1], folder)
    dataset = ot.data.Dataset.from_tensor_slices(data.train).shuffle(len(images)).batch(batch_size)
    run = Run()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("loss {task.fields[loss]}"))
    # A bar only where someone is watching; in a file it would be garbage.
    with Progress(*columns, transient=True, disable=not Console().is_terminal) as progress:
        task = progress.add_task(way, total=epochs * len(dataset), loss="")
        for epoch in range(1, epochs + 1):
            epoch_start = time.perf_counter()
            trainer.start_epoch()
            for x, y in dataset:
                start = time.perf_counter()
                results = trainer.train_step(x, y)
                run.losses.append(float(results["loss"]))
                run.seconds.append(time.perf_counter() - start)
                progress.update(task, advance=1, loss=f"{run.losses[-1]:.4f}")
            validation = trainer.evaluate(*data.validation)
            print(
                f"{way} {epoch:2}/{epochs}   loss {np.mean(run.losses[-len(dataset) :]):.4f}   "
                f"train accuracy {float(results['accuracy']):.4f}   "
                f"validation accuracy {validation:.4f}   {time.perf_counter() - epoch_start:.2f} s"
            )
    run.test_logits = trainer.predict(data.test[0])
    print(f"test accuracy {trainer.evaluate(*data.test):.4f}, {sum(run.seconds):.2f} s of training\n")
    return run


def compare(runs: dict[str, Run]) -> None:
    """Print how fast the ways were, and whether their losses are the same."""
    print("way        first step   other steps   largest difference of a loss")
    reference = np.array(runs["eager"].losses)
    for way, run in runs.items():
        difference = np.max(np.abs(run.losses - reference) / reference)
        first, *others = (1000 * s for s in run.seconds)
        print(f"{way:8}   {first:7.1f} ms   {np.median(others):8.3f} ms   {difference:.1e}")
        if difference > 1e-5:
            fail(f"the losses of '{way}' are not those of 'eager'")
    print(f"The three agree in all {len(reference)} losses.\n")
