"""Handwritten digits: a training loop from scratch, its step run in three ways.

The model and the loop are those of Keras's guide "Writing a training loop from scratch".

    python examples/mnist_mlp.py                     scikit-learn's 1,797 digits of 8x8 pixels
    python examples/mnist_mlp.py --mode all          train in all three ways, and compare
    python examples/mnist_mlp.py --data mnist.npz    MNIST, in the file that Keras downloads
"""

from __future__ import annotations

import argparse
import importlib.util
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

COLORS = ("#f2a65a", "#3b6fb6", "#1d1d1d")
WRONG = "#c8342b"
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
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]}"),
    )
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
    print(
        f"test accuracy {trainer.evaluate(*data.test):.4f}, {sum(run.seconds):.2f} s of training\n"
    )
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


# Data ---------------------------------------------------------------------------------------------


def load_digits() -> tuple[Any, Any, Any, Any]:
    try:
        import sklearn.datasets
    except ImportError:
        fail(f"the digits come with scikit-learn, which is not installed: {INSTALL}")
    digits = sklearn.datasets.load_digits()
    # Always the same split, whatever the seed: other seeds should differ in training alone.
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = digits.images[order] / 16, digits.target[order]
    return images[360:], labels[360:], images[:360], labels[:360]


def load_keras_file(path: Path) -> tuple[Any, Any, Any, Any]:
    try:
        with np.load(path) as file:
            arrays = [file[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror or error}")
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        fail(f"{path} is no .npz file with x_train, y_train, x_test and y_test")
    x_train, y_train, x_test, y_test = arrays
    for x, y in ((x_train, y_train), (x_test, y_test)):
        if (x.dtype, y.dtype) != (np.uint8, np.uint8) or x.ndim != 3 or y.shape != x.shape[:1]:
            fail(
                f"{path}: images are uint8 of shape (n, height, width), labels uint8 of shape (n,)"
            )
        if x.shape[1:] != x_train.shape[1:] or len(x) < 16 or y.max() > 9:
            fail(f"{path}: 16 images and more per split, all of one size, with labels 0 to 9")
    return x_train / 255, y_train, x_test / 255, y_test


def load_data(path: Path | None, limit: int | None) -> Data:
    x_train, y_train, x_test, y_test = load_keras_file(path) if path else load_digits()

    def flat(images: Any, labels: Any) -> tuple[Any, Any]:
        return images.reshape(len(images), -1).astype(np.float32), labels.astype(np.int64)

    x, y = flat(x_train[:limit], y_train[:limit])
    held_out = len(x) // 10  # to watch training, so that the test set is used only once
    return Data(
        (x[held_out:], y[held_out:]),
        (x[:held_out], y[:held_out]),
        flat(x_test, y_test),
        x_train.shape[1:],
    )


# The picture --------------------------------------------------------------------------------------


def draw(path: Path, runs: dict[str, Run], data: Data) -> None:
    """The loss curve, and the sixteen test digits that the model is least sure of."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), dpi=120, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.2, 1))
    axes = left.add_subplot(title="Training loss", xlabel="step", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    # The same losses three times: each line is thinner than the one below it.
    for (way, run), color, width in zip(
        runs.items(), COLORS, (1.8, 5, 1.8)[-len(runs) :], strict=False
    ):
        window = max(1, len(run.losses) // 60)
        smooth = np.convolve(run.losses, np.full(window, 1 / window), "valid")
        axes.plot(run.losses, color=color, alpha=0.2, linewidth=0.6)
        axes.plot(
            np.arange(len(smooth)) + window / 2, smooth, color=color, linewidth=width, label=way
        )
    axes.legend(frameon=False)

    logits = run.test_logits
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    unsure = probabilities.max(axis=1).argsort()[:16]
    right.suptitle("The test digits it is least sure of")
    images, labels = data.test
    for cell, i in zip(right.subplots(4, 4).flat, unsure, strict=True):
        answer = int(logits[i].argmax())
        wrong = answer != labels[i]
        cell.imshow(images[i].reshape(data.image_shape), cmap="gray_r")
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set(color=WRONG if wrong else "0.8", linewidth=2 if wrong else 0.8)
        text = f"{answer}, not {labels[i]}" if wrong else str(answer)
        cell.set_title(text, color=WRONG if wrong else "0.2", fontsize=10, pad=3)
    figure.savefig(path)
    print(f"{path}: the loss, and the test digits that the model is least sure of")


# The command --------------------------------------------------------------------------------------


def fail(message: str) -> NoReturn:
    print(f"mnist_mlp: {message}", file=sys.stderr)
    raise SystemExit(2)


def at_least(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return int(text)

    return whole_number


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--mode", choices=(*WAYS, "all"), default="compiled", help="default: compiled")
    add("--data", type=Path, metavar="FILE", help="MNIST as .npz, instead of the small digits")
    add("--epochs", type=at_least(1), help="default: 30; 5 with --data; 1 with --mode all")
    add("--batch-size", type=at_least(1), default=32, help="default: 32")
    add("--seed", type=at_least(0), default=0, help="default: 0")
    add("--limit", type=at_least(10), metavar="N", help="use the first N training images only")
    add("--plot", type=Path, default="mnist_mlp.png", metavar="FILE", help="default: mnist_mlp.png")
    add("--no-plot", dest="plot", action="store_const", const=None, help="draw no picture")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    data = load_data(options.data, options.limit)
    if options.plot:  # whatever is wrong with it should show before training, not after
        if importlib.util.find_spec("matplotlib") is None:
            fail(f"matplotlib, which draws the picture, is not installed: {INSTALL}, or --no-plot")
        if not options.plot.parent.is_dir():
            fail(f"--plot: there is no folder {options.plot.parent}")
    everything = options.mode == "all"
    epochs = options.epochs or (1 if everything else 5 if options.data else 30)
    make_model(data.train[0].shape[1]).summary()
    print(
        "images:",
        ", ".join(f"{len(getattr(data, s)[0])} {s}" for s in ("train", "validation", "test")),
    )
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS if everything else [options.mode]:
            runs[way] = train(way, data, epochs, options.batch_size, options.seed, Path(folder))
    if everything:
        compare(runs)
    if options.plot:
        draw(options.plot, runs, data)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nmnist_mlp: stopped", file=sys.stderr)
        raise SystemExit(130) from None
