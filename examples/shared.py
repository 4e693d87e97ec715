"""What the examples share: options, digits, progress, pictures. Nothing in here knows onnxtape."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track


def parse_options(description: str | None, epochs: int, data: bool = True) -> argparse.Namespace:
    """The options of an example, whose defaults train it properly."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--epochs", type=int, default=epochs, metavar="N", help=f"default: {epochs}")
    add("--steps", type=int, metavar="N", help="end each epoch after N steps")
    add("--seed", type=int, default=0, metavar="N", help="default: 0")
    add("--folder", type=Path, default=Path(), metavar="PATH", help="where pictures go")
    if data:
        add("--data", type=Path, metavar="FILE", help="MNIST as .npz, instead of the small digits")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


def load_data(path: Path | None) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """`(x_train, y_train), (x_test, y_test)`, as `keras.datasets.mnist.load_data()` returns them.

    Images are uint8 (n, 28, 28), labels (n,). Without a path they are scikit-learn's 1,797 digits
    of 8x8 pixels, drawn larger.
    """
    if path is None:
        return _small_digits()
    if not path.is_file():
        raise SystemExit(f"there is no file {path}")
    with np.load(path) as file:
        missing = {"x_train", "y_train", "x_test", "y_test"} - set(file.files)
        if missing:
            raise SystemExit(
                f"{path} is not MNIST as Keras has it: no {', '.join(sorted(missing))}"
            )
        return (file["x_train"], file["y_train"]), (file["x_test"], file["y_test"])


def _small_digits() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit(
            "scikit-learn is not installed: pip install scikit-learn matplotlib"
        ) from None
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    # 24 rows between the 8, by linear interpolation; then columns; then MNIST's margin.
    places = np.linspace(0, 7, 24)
    widen = np.stack([np.interp(places, np.arange(8), row) for row in np.eye(8)], axis=1)
    images = np.pad(widen @ digits.images[order] @ widen.T, ((0, 0), (2, 2), (2, 2)))
    images, labels = np.rint(images * 255 / 16).astype(np.uint8), digits.target[order]
    return (images[:1437], labels[:1437]), (images[1437:], labels[1437:])


def progress(batches: Any, title: str) -> Iterable[Any]:
    """The batches, with a bar where someone is watching: it would fill a file with garbage."""
    return track(batches, title, transient=True, disable=not sys.stdout.isatty())


def save_grid(path: Path, images: Any, columns: int = 8) -> None:
    """Write gray images (n, height, width, 1) from 0 to 1 into one PNG, row by row."""
    try:
        from matplotlib.image import imsave
    except ImportError:
        raise SystemExit(
            "matplotlib is not installed: pip install scikit-learn matplotlib"
        ) from None
    images = np.pad(np.asarray(images)[..., 0], ((0, 0), (1, 1), (1, 1)), constant_values=0.5)
    rows = [np.hstack(images[i : i + columns]) for i in range(0, len(images), columns)]
    imsave(path, np.kron(np.vstack(rows), np.ones((2, 2))), cmap="gray", vmin=0, vmax=1)
