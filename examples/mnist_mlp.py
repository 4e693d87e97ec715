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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rich.console import Console
from rich.progress import Progress

import onnxtape as ot
from onnxtape import layers

# The three ways -----------------------------------------------------------------------------------


def make_model(pixels: int) -> ot.Model:
    inputs = ot.Input(shape=(pixels,), name="digits")
    x = layers.Dense(64, activation="relu", name="dense_1")(inputs)
    x = layers.Dense(64, activation="relu", name="dense_2")(x)
    # No softmax: a loss that takes the logits is more exact where probabilities are small.
    outputs = layers.Dense(10, name="predictions")(x)
    return ot.Model(inputs, outputs, name="mnist_mlp")


class Eager:
    """Plain Python: each operation runs as it is reached. Slow, and easy to look into."""

    def __init__(self, pixels: int, folder: Path) -> None:
        self.model = make_model(pixels)
        self.optimizer = ot.optimizers.Adam(learning_rate=2e-3)
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

    Forward pass, gradients, Adam and the metric are all in the graph, so a step is a single call.
    Above a function of your own, write `@ot.function`, as the guide does.
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
        # From here on there is only the folder; the session keeps weights, moments and metric.
        self.session = ot.TrainingSession(folder / "artifact")
        self.trained = folder / "trained.onnx"

    def train_step(self, x: Any, y: Any) -> Any:
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


WAYS: dict[str, Any] = {"eager": Eager, "compiled": Compiled, "artifact": Artifact}

# The loop -----------------------------------------------------------------------------------------

# Images (n, pixels), float32 from 0 to 1, and labels (n,), int64: of train, validation and test.
Data = dict[str, tuple[Any, Any]]


@dataclass
class Run:
    """What a training gave: the loss and the time of each step, and logits for the test set."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    logits: Any = None


def train(way: str, data: Data, epochs: int, options: argparse.Namespace) -> Run:
    # It decides the first weights and the order of the batches, so that runs can be repeated.
    ot.set_seed(options.seed)
    run = Run()
    count, pixels = data["train"][0].shape
    batches = ot.data.Dataset.from_tensor_slices(data["train"])
    batches = batches.shuffle(count).batch(options.batch_size)
    # A bar only where someone is watching: it would fill a file with garbage.
    bar = Progress(transient=True, disable=not Console().is_terminal)
    with tempfile.TemporaryDirectory() as folder, bar:
        trainer = WAYS[way](pixels, Path(folder))
        task = bar.add_task(way, total=epochs * len(batches))
        for epoch in range(1, epochs + 1):
            epoch_start = time.perf_counter()
            trainer.start_epoch()
            for x, y in batches:
                start = time.perf_counter()
                results = trainer.train_step(x, y)
                run.losses.append(float(results["loss"]))
                run.seconds.append(time.perf_counter() - start)
                bar.update(task, advance=1, description=f"{way}, loss {run.losses[-1]:.4f}")
            validation = trainer.evaluate(*data["validation"])
            print(
                f"{way} {epoch:2}/{epochs}: loss {np.mean(run.losses[-len(batches) :]):.4f}, "
                f"accuracy {float(results['accuracy']):.4f}, in validation {validation:.4f}, "
                f"{time.perf_counter() - epoch_start:.3f} s",
                flush=True,
            )
        run.logits = trainer.predict(data["test"][0])
        print(f"test accuracy {trainer.evaluate(*data['test']):.4f}\n")
    return run


def compare(runs: dict[str, Run]) -> None:
    """Print how fast the ways were, and how far apart their losses."""
    reference = np.array(runs["eager"].losses)
    for way, run in runs.items():
        difference = np.max(np.abs(run.losses - reference) / np.maximum(reference, 1e-6))
        print(
            f"{way:8} {1000 * np.median(run.seconds):6.3f} ms a step, "
            f"losses differ from eager's by {difference:.1g} at most (relative)"
        )
        if difference > 1e-5:
            raise SystemExit(f"mnist_mlp: '{way}' and 'eager' should have the same losses")
    print(f"The three agree in {len(reference)} losses.\n")


# Data and picture ---------------------------------------------------------------------------------


def load_data(path: Path | None, limit: int | None) -> Data:
    arrays = read_keras_file(path) if path else load_digits()
    x, x_test = (images.reshape(len(images), -1).astype(np.float32) for images in arrays[::2])
    y, y_test = (labels.astype(np.int64) for labels in arrays[1::2])
    x, y = x[:limit], y[:limit]
    # A tenth is held out to watch training by, so that the test comes as a surprise.
    n = max(1, len(x) // 10)
    print(f"{len(x) - n} images to train on, {n} to validate, {len(x_test)} to test")
    return {"train": (x[n:], y[n:]), "validation": (x[:n], y[:n]), "test": (x_test, y_test)}


def load_digits() -> tuple[Any, Any, Any, Any]:
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    # One split for every seed: seeds are for training.
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = digits.images[order] / 16, digits.target[order]
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


def read_keras_file(path: Path) -> tuple[Any, Any, Any, Any]:
    names = "x_train", "y_train", "x_test", "y_test"
    if not path.is_file():
        fail(f"there is no file {path}")
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            x, y, x_test, y_test = (arrays[name] for name in names)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        fail(f"{path} is not an .npz file with {', '.join(names)}")
    for images, labels in ((x, y), (x_test, y_test)):
        fits = images.shape[1:] == (28, 28) and labels.shape == images.shape[:1]
        if not (fits and images.dtype == np.uint8 and np.isin(labels, range(10)).all()):
            fail(f"{path} is not MNIST: uint8 images of 28x28 pixels, labels from 0 to 9")
        if len(images) < 16:
            fail(f"{path} has only {len(images)} images in a split; 16 are the least")
    return x / 255, y, x_test / 255, y_test


def draw(path: Path, run: Run, data: Data) -> None:
    """The loss curve, and the sixteen test digits that the model is least sure of."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), dpi=120, layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.2, 1))[0]
    axes = left.add_subplot(title="Training loss", xlabel="step", yscale="log")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.plot(run.losses, color="#a9bfdc", linewidth=0.5, label="of each batch")
    window = max(1, len(run.losses) // 60)
    mean = np.convolve(run.losses, np.full(window, 1 / window), mode="valid")
    middle = np.arange(len(mean)) + (window - 1) / 2
    axes.plot(middle, mean, color="#20497d", linewidth=2, label=f"mean of {window}")
    axes.legend(frameon=False)

    logits, (images, labels) = run.logits, data["test"]
    answers, side = logits.argmax(axis=1), round(images.shape[1] ** 0.5)
    right.suptitle(f"{np.mean(answers == labels):.1%} right; the test digits it is least sure of")
    # One over the probability, by softmax, of the likeliest class.
    doubt = np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    for cell, i in zip(right.subplots(4, 4).flat, doubt.argsort()[:-17:-1], strict=True):
        wrong = answers[i] != labels[i]
        cell.imshow(images[i].reshape(side, side), cmap="gray_r")
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set(color="#c8342b" if wrong else "0.8", linewidth=2 if wrong else 0.8)
        title = f"{answers[i]}, not {labels[i]}" if wrong else str(answers[i])
        cell.set_title(title, color="#c8342b" if wrong else "0.2", fontsize=10, pad=3)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.15)
    print(f"{path}: the loss, and the test digits that the model is least sure of")


# The command --------------------------------------------------------------------------------------


def fail(message: str) -> NoReturn:
    print(f"mnist_mlp: {message}", file=sys.stderr)
    raise SystemExit(2)


def whole_number(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    positive, several = partial(whole_number, least=1), partial(whole_number, least=2)
    add("--mode", choices=(*WAYS, "all"), default="compiled", help="default: compiled")
    add("--data", type=Path, metavar="FILE", help="MNIST as .npz, instead of the small digits")
    add("--epochs", type=positive, metavar="N", help="default: 20; 5 with --data; 1 with all modes")
    add("--batch-size", type=positive, default=64, metavar="N", help="default: 64")
    add("--seed", type=whole_number, default=0, metavar="N", help="default: 0")
    add("--limit", type=several, metavar="N", help="use the first N training images only")
    add("--plot", type=Path, default="mnist_mlp.png", metavar="FILE", help="default: mnist_mlp.png")
    add("--no-plot", dest="plot", action="store_const", const=None, help="draw no picture")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    # What is missing should be missed now, not after training.
    for package, needed in (("sklearn", not options.data), ("matplotlib", options.plot)):
        if needed and importlib.util.find_spec(package) is None:
            fail(f"{package} is not installed: pip install scikit-learn matplotlib")
    if options.plot and not options.plot.parent.is_dir():
        fail(f"there is no folder {options.plot.parent} for the picture")
    data = load_data(options.data, options.limit)
    make_model(data["train"][0].shape[1]).summary()
    ways = list(WAYS) if options.mode == "all" else [options.mode]
    epochs = options.epochs or (1 if len(ways) > 1 else 5 if options.data else 20)
    runs = {way: train(way, data, epochs, options) for way in ways}
    if len(ways) > 1:
        compare(runs)
    if options.plot:
        draw(options.plot, runs[ways[-1]], data)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nmnist_mlp: stopped", file=sys.stderr)
        raise SystemExit(130) from None
