"""The examples that draw: their losses fall, and their pictures show something."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from tests.examples.running import run


def losses_in(output: str) -> list[float]:
    return [float(x) for x in re.findall(r"^epoch \d+: .*?loss (-?[\d.]+)", output, re.MULTILINE)]


@pytest.mark.parametrize("name", ["vae", "wgan_gp", "unet", "custom_layer"])
def test_loss_falls_and_the_picture_is_written(name: str, tmp_path: Path) -> None:
    steps = "2" if name == "wgan_gp" else "5"
    output, _ = run(name, "--epochs", "2", "--steps", steps, "--folder", str(tmp_path / "new"))
    first, second = losses_in(output)
    assert second < first
    assert "\x1b" not in output
    (path,) = (tmp_path / "new").iterdir()
    assert path.name == f"{name}.png"
    picture = matplotlib.image.imread(path)
    assert min(picture.shape[:2]) > 400
    assert np.unique(picture[..., 0]).size > 10


def test_a_seed_repeats_a_run(tmp_path: Path) -> None:
    arguments = ("--epochs", "1", "--steps", "2", "--folder", str(tmp_path))
    first, again, other = (run("vae", *arguments, "--seed", seed)[0] for seed in ("1", "1", "2"))
    assert first == again != other
