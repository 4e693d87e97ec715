"""examples/mnist_mlp.py, as a command with warnings as errors, and its loop in the three ways."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
import sklearn.datasets

SCRIPT = Path(__file__).parents[2] / "examples" / "mnist_mlp.py"
COMMAND = [sys.executable, "-W", "error", str(SCRIPT)]
# rich takes these as a wish for colors and bars where there is no terminal.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
}
posix = pytest.mark.skipif(os.name != "posix", reason="signals and terminals as on POSIX")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def succeeded(result: subprocess.CompletedProcess[str]) -> str:
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def failed(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a run that was refused before training."""
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "loss" not in result.stdout
    return result.stderr.strip()


def accuracies_in(output: str) -> list[float]:
    return [float(number) for number in re.findall(r"test accuracy ([\d.]+)\n", output)]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mnist_mlp", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mnist_mlp"] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


def keras_arrays() -> dict[str, Any]:
    """The small digits, drawn larger, as Keras's MNIST file has them."""
    digits = sklearn.datasets.load_digits()
    images = np.kron(digits.images, np.ones((3, 3))) * (255 / 16)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    return {
        "x_train": images[:1500],
        "y_train": labels[:1500],
        "x_test": images[1500:],
        "y_test": labels[1500:],
    }


def colored(picture: Any, color: str) -> int:
    distance = np.abs(picture[..., :3] - matplotlib.colors.to_rgb(color)).max(axis=-1)
    return int(np.sum(distance < 0.05))


def test_defaults_train_well_and_draw(tmp_path: Path) -> None:
    output = succeeded(run(tmp_path))
    assert 'Model: "mnist_mlp"' in output
    assert "1294 images to train on, 143 to validate, 360 to test" in output
    assert output.count("compiled ") == 20
    assert "\x1b" not in output
    assert "\r" not in output
    (accuracy,) = accuracies_in(output)
    assert accuracy >= 0.97
    # Nothing but the picture is left behind.
    assert [path.name for path in tmp_path.iterdir()] == ["mnist_mlp.png"]


def test_all_modes_agree_and_are_drawn(tmp_path: Path) -> None:
    picture_path = tmp_path / "there.png"
    output = succeeded(run(tmp_path, "--mode", "all", "--plot", str(picture_path)))
    assert "The three agree in 21 losses." in output
    eager, compiled, artifact = accuracies_in(output)
    assert eager == compiled == artifact

    picture = matplotlib.image.imread(picture_path)
    height, width, _ = picture.shape
    assert height > 500
    assert width > 1000
    left, right = picture[:, : width // 2], picture[:, width // 2 :]
    assert colored(left, "#20497d") > 500  # the mean loss
    # After one epoch some of the least sure digits are wrong, and are marked.
    assert colored(right, "#c8342b") > 500
    assert colored(right, "black") > 1000


@pytest.mark.parametrize("seed", [0, 3])
def test_losses_of_the_three_ways_are_equal(example: ModuleType, seed: int) -> None:
    data = example.load_data(None, 500)
    options = argparse.Namespace(batch_size=64, seed=seed)
    runs = {way: example.train(way, data, 3, options) for way in example.WAYS}
    assert len(runs["eager"].losses) == 3 * 8
    for way in ("compiled", "artifact"):
        np.testing.assert_allclose(runs[way].losses, runs["eager"].losses, rtol=1e-5)
        np.testing.assert_allclose(runs[way].logits, runs["eager"].logits, rtol=1e-4, atol=1e-4)
    # They learn: an epoch has eight steps.
    assert np.mean(runs["eager"].losses[-8:]) < 0.9 * np.mean(runs["eager"].losses[:8])


def test_compare_refuses_losses_that_differ(
    example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    same, other = example.Run([1.0, 0.5], [0.1, 0.1]), example.Run([1.0, 0.50001], [0.1, 0.1])
    example.compare({"eager": same, "compiled": same})
    assert "The three agree in 2 losses" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="'artifact' and 'eager' should have the same losses"):
        example.compare({"eager": same, "artifact": other})


SHORT = ("--limit", "200", "--epochs", "2", "--no-plot")


def epochs(output: str, mode: str) -> list[str]:
    """What a mode printed of its epochs, but for the time they took."""
    return re.findall(rf"^{mode}  (\d/\d: loss .*), [\d.]+ s$", output, re.MULTILINE)


@pytest.fixture(scope="module")
def all_modes(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("all")
    return succeeded(run(folder, "--mode", "all", "--seed", "5", *SHORT))


@pytest.mark.parametrize("mode", ["eager", "compiled", "artifact"])
def test_a_mode_alone_repeats_what_it_gave_beside_the_others(
    tmp_path: Path, all_modes: str, mode: str
) -> None:
    output = succeeded(run(tmp_path, "--mode", mode, "--seed", "5", *SHORT))
    assert "180 images to train on, 20 to validate" in output
    assert len(epochs(output, mode)) == 2
    assert epochs(output, mode) == epochs(all_modes, mode) == epochs(all_modes, "eager")
    assert accuracies_in(output) == accuracies_in(all_modes)[:1]
    assert not list(tmp_path.iterdir())


def test_another_seed_trains_differently(tmp_path: Path, all_modes: str) -> None:
    output = succeeded(run(tmp_path, "--seed", "6", *SHORT))
    assert len(epochs(output, "compiled")) == 2
    assert not set(epochs(output, "compiled")) & set(epochs(all_modes, "compiled"))


def test_trains_on_the_file_that_keras_downloads(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", **keras_arrays())
    output = succeeded(run(tmp_path, "--data", "mnist.npz", "--batch-size", "16", "--no-plot"))
    assert "(None, 784)" in output
    assert "1350 images to train on, 150 to validate, 297 to test" in output
    assert output.count("compiled ") == 5
    (accuracy,) = accuracies_in(output)
    assert accuracy > 0.85


def test_refuses_files_that_are_not_mnist(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = keras_arrays()
    path = tmp_path / "mnist.npz"

    def refusal() -> str:
        with pytest.raises(SystemExit) as exit_info:
            example.load_data(path, None)
        assert exit_info.value.code == 2
        return capsys.readouterr().err.replace(str(path), "FILE").strip()

    not_an_npz = "mnist_mlp: FILE is not an .npz file with x_train, y_train, x_test, y_test"
    not_mnist = "mnist_mlp: FILE is not MNIST: uint8 images of 28x28 pixels, labels from 0 to 9"

    assert refusal() == "mnist_mlp: there is no file FILE"
    for content in (b"", b"x_train,y_train\n1,2\n"):
        path.write_bytes(content)
        assert refusal() == not_an_npz
    with path.open("wb") as file:
        np.save(file, arrays["x_train"])
    assert refusal() == not_an_npz
    np.savez(path, x_train=arrays["x_train"], y_train=arrays["y_train"])
    assert refusal() == not_an_npz
    np.savez_compressed(path, **arrays)
    path.write_bytes(path.read_bytes()[:-1000])
    assert refusal() == not_an_npz
    wrong = {
        "x_train": arrays["x_train"].astype(np.float32),
        "y_train": arrays["y_train"] + 1,
        "x_test": arrays["x_test"][:, :8, :8],
        "y_test": arrays["y_test"][:-1],
    }
    for name, array in wrong.items():
        np.savez(path, **(arrays | {name: array}))
        assert refusal() == not_mnist
    np.savez(path, **(arrays | {"x_test": arrays["x_test"][:9], "y_test": arrays["y_test"][:9]}))
    assert refusal() == "mnist_mlp: FILE has only 9 images in a split; 16 are the least"


def test_a_wrong_path_is_one_sentence(tmp_path: Path) -> None:
    assert failed(run(tmp_path, "--data", "no.npz")) == "mnist_mlp: there is no file no.npz"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--plot", os.path.join("no", "a.png")), "there is no folder no for the picture"),
        (("--epochs", "0"), "--epochs: '0' is not a whole number of 1 or more"),
        (("--batch-size=-3",), "--batch-size: '-3' is not a whole number of 1 or more"),
        (("--seed", "x"), "--seed: 'x' is not a whole number of 0 or more"),
        (("--limit", "1"), "--limit: '1' is not a whole number of 2 or more"),
        (("--mode", "fast"), "--mode: invalid choice: 'fast'"),
    ],
)
def test_wrong_arguments_are_refused_before_training(
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["mnist_mlp.py", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        example.main()
    assert exit_info.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert sentence in errors


@pytest.mark.parametrize("package", ["sklearn", "matplotlib"])
def test_says_how_to_install_what_is_missing(tmp_path: Path, package: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.modules[{package!r}] = None\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    expected = f"mnist_mlp: {package} is not installed: pip install scikit-learn matplotlib"
    assert failed(result) == expected


@posix
def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "--epochs", "1000000", "--no-plot"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A background job's children ignore Ctrl-C unless they are told otherwise.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout is not None
            while "compiled  2/" not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors == "\nmnist_mlp: stopped\n"


@posix
def test_a_terminal_shows_a_bar_and_clears_it(tmp_path: Path) -> None:
    import pty

    terminal, end = pty.openpty()
    environment = ENVIRONMENT | {"TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        [*COMMAND, "--epochs", "3", "--limit", "200", "--no-plot"],
        cwd=tmp_path,
        env=environment,
        stdout=end,
        stderr=end,
    )
    os.close(end)
    shown = b""
    try:
        while chunk := os.read(terminal, 65536):
            shown += chunk
    except OSError:  # how Linux tells that the other end was closed
        pass
    finally:
        os.close(terminal)
        process.wait(timeout=60)
    assert process.returncode == 0
    text = shown.decode()
    assert "compiled, loss" in text
    assert "━" in text
    # The last of it: the cursor is back, and the line of the bar is cleared.
    assert text.rstrip().endswith("\x1b[2K")
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")
