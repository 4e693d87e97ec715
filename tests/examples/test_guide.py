"""The examples after Keras's guide: each trains, and their programs have Keras's losses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

import onnxtape as ot
from tests.examples.running import EXAMPLES, run
from tests.reference import parity


def losses_in(output: str) -> list[float]:
    return [float(x) for x in re.findall(r"Training loss .* at step \d+: ([\d.]+)", output)]


def accuracies_in(output: str, kind: str) -> list[float]:
    return [float(x) for x in re.findall(rf"{kind}: ([\d.]+)", output)]


@pytest.mark.parametrize("name", parity.names("guide"))
def test_losses_as_keras(name: str) -> None:
    parity.check("guide", name, rtol=1e-4, atol=1e-5)


def test_first_loop() -> None:
    output, _ = run("guide_1_first_loop", "--epochs", "2")
    losses = losses_in(output)
    assert len(losses) == 6
    assert losses[0] > 2
    assert losses[-1] < 1
    # The last batch is smaller.
    assert "Seen so far: 1312 samples" in output


def test_metrics() -> None:
    output, _ = run("guide_2_metrics", "--epochs", "2")
    train, validation = (accuracies_in(output, k) for k in ("Training acc.*", "Validation acc"))
    assert len(train) == len(validation) == 2
    assert train[0] < train[1]
    assert validation[1] > 0.85


def test_compiled_step_gives_the_eager_losses() -> None:
    output, made = run("guide_3_compiled_step", "--epochs", "3", "--steps", "25")
    assert "epoch 0, eager" in output
    assert "epoch 2, compiled" in output
    assert re.search(r"ms eagerly, [\d.]+ ms compiled:\n\d+ times as fast. Traced 1 times", output)
    assert made["test_step"].trace_count == 2  # the last batch is smaller
    # Without the decorator it is the second part of the guide, number for number.
    eager, _ = run("guide_2_metrics", "--epochs", "3", "--steps", "25")
    np.testing.assert_allclose(losses_in(output), losses_in(eager), atol=2e-4)
    assert accuracies_in(output, "Validation acc") == accuracies_in(eager, "Validation acc")


def test_add_loss() -> None:
    output, made = run("guide_4_add_loss", "--epochs", "1")
    whole, added = losses_in(output), accuracies_in(output, "Training acc.*")
    assert whole[-1] < whole[0]
    assert added[0] > 0.4
    assert made["train_step"].fallback_reason is None
    x = made["x_train"][:8]
    activities = made["model"].layers[1](x).numpy()
    made["model"](x)
    (loss,) = made["model"].losses
    np.testing.assert_allclose(float(loss), 1e-4 * activities.sum(), rtol=1e-5)


# The DCGAN ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dcgan(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("dcgan")
    output, made = run("guide_5_dcgan", "--epochs", "1", "--steps", "1", "--folder", str(folder))
    return output, made, folder


def table_rows(output: str) -> list[tuple[str, str]]:
    """Output shape and parameters of each layer."""
    return re.findall(r"│ \w.*│ (\(.*?\)) +│ +([\d,]+) │", output)


def test_dcgan_has_the_tables_of_the_guide(dcgan: tuple[str, dict[str, Any], Path]) -> None:
    output = dcgan[0]
    assert table_rows(output) == [
        ("(None, 14, 14, 64)", "640"),
        ("(None, 14, 14, 64)", "0"),
        ("(None, 7, 7, 128)", "73,856"),
        ("(None, 7, 7, 128)", "0"),
        ("(None, 128)", "0"),
        ("(None, 1)", "129"),
        ("(None, 6272)", "809,088"),
        ("(None, 6272)", "0"),
        ("(None, 7, 7, 128)", "0"),
        ("(None, 14, 14, 128)", "262,272"),
        ("(None, 14, 14, 128)", "0"),
        ("(None, 28, 28, 128)", "262,272"),
        ("(None, 28, 28, 128)", "0"),
        ("(None, 28, 28, 1)", "6,273"),
    ]
    assert "Total params: 74,625 (291.50 KB)" in output
    assert "Total params: 1,339,905 (5.11 MB)" in output


def test_dcgan_trains_and_draws(dcgan: tuple[str, dict[str, Any], Path]) -> None:
    output, made, folder = dcgan
    losses = [float(x) for x in re.findall(r"loss at step 0: ([\d.]+)", output)]
    np.testing.assert_allclose(losses, np.log(2), atol=0.1)
    picture = matplotlib.image.imread(folder / "dcgan_epoch_00.png")
    assert picture.shape[:2] == (8 * 30 * 2, 8 * 30 * 2)
    assert made["train_step"].fallback_reason is None

    # The discriminator learns to tell one batch from what is generated.
    first, *_, last = (float(made["train_step"](made["all_digits"][:8])[0]) for _ in range(6))
    assert last < first


def test_dcgan_takes_every_batch_size(dcgan: tuple[str, dict[str, Any], Path]) -> None:
    step, images = dcgan[1]["train_step"], dcgan[1]["all_digits"]
    for n in (2, 5, 1):
        d_loss, g_loss, generated = step(images[:n])
        assert np.isfinite([float(d_loss), float(g_loss)]).all()
        assert generated.shape == (n, 28, 28, 1)
    assert step.trace_count == 1

    unsigned = ot.function(step.python_function)
    for n in (2, 5, 1):
        assert unsigned(images[:n])[2].shape == (n, 28, 28, 1)
    assert unsigned.trace_count == 2


PLAIN_PROGRAM = """
import json, pathlib, sys
import numpy as np
import onnxruntime as ort
from safetensors.numpy import load_file

folder, images = pathlib.Path(sys.argv[1]), np.load(sys.argv[2])
manifest = json.loads((folder / "manifest.json").read_text())
session = ort.InferenceSession(str(folder / "training.onnx"))
stored = load_file(folder / "state.safetensors")
state = {entry["input"]: stored[entry["name"]] for entry in manifest["state"]}
losses = [entry["name"] for entry in manifest["outputs"]][:2]
updates = {e["output"]: e["input"] for e in manifest["state"] if e["output"] is not None}
wanted = [*losses, *updates]
rows = []
for n in (4, 4, 3):
    found = dict(zip(wanted, session.run(wanted, {"real_images": images[:n], **state})))
    state.update({updates[name]: found[name] for name in updates})
    rows.append([float(found[name]) for name in losses])
assert not {"onnx", "onnx_ir", "onnxtape"} & set(sys.modules)
print(json.dumps(rows))
"""


def test_dcgan_trains_from_its_artifact_in_a_plain_program(
    dcgan: tuple[str, dict[str, Any], Path], tmp_path: Path
) -> None:
    step, images = dcgan[1]["train_step"], dcgan[1]["all_digits"][:4]
    step.export(tmp_path / "artifact")
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_PROGRAM, tmp_path / "artifact", tmp_path / "images.npy"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    expected = [[float(loss) for loss in step(images[:n])[:2]] for n in (4, 4, 3)]
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=1e-5)


# Data ---------------------------------------------------------------------------------------------


def test_trains_on_the_file_that_keras_downloads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (70, 28, 28), np.uint8), rng.integers(0, 10, 70)
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    output, made = run("guide_1_first_loop", "--epochs", "1", "--data", str(tmp_path / "mnist.npz"))
    assert len(losses_in(output)) == 1
    np.testing.assert_array_equal(made["x_train"], images.reshape(-1, 784).astype("f4") / 255)

    np.savez(tmp_path / "other.npz", x_train=images)
    with pytest.raises(
        SystemExit, match="is not MNIST as Keras has it: no x_test, y_test, y_train"
    ):
        run("guide_1_first_loop", "--data", str(tmp_path / "other.npz"))
    with pytest.raises(SystemExit, match=r"there is no file no\.npz"):
        run("guide_1_first_loop", "--data", "no.npz")


def test_the_readme_lists_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"python examples/(\w+\.py)", text)
    assert sorted(set(listed)) == sorted(
        p.name for p in EXAMPLES.glob("*.py") if p.stem != "shared"
    )
