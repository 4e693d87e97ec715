"""JavaScript trains from what Python exported: in Node, and in a real browser.

`make test-js` installs ONNX Runtime's packages and runs these tests.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import naming
from onnxtape.runtime.checkpoint import load_state
from tests.frontend.training import CLASSES, FEATURES, Training, batches

pytestmark = pytest.mark.js

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = ROOT / "js" / "node_modules"
PACKAGES = ("onnxruntime-node", "onnxruntime-web", "typescript")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
DTYPES = (
    *("float32", "float64", "float16", "int64", "int32", "int16", "int8"),
    *("uint64", "uint32", "uint16", "uint8", "bool"),
)


def missing(*, browser: bool) -> str | None:
    """What of the things that the tests need is not here."""
    if shutil.which("node") is None:
        return "there is no node (18 or later)"
    if not all((MODULES / name).is_dir() for name in PACKAGES):
        return f"{', '.join(PACKAGES)} are not in js/node_modules: `make test-js` installs them"
    return "there is no chromium" if browser and CHROMIUM is None else None


def require(*, browser: bool = False) -> None:
    if (reason := missing(browser=browser)) is None:
        return
    if os.environ.get("ONNXTAPE_REQUIRE_JS") == "1":
        pytest.fail(f"ONNXTAPE_REQUIRE_JS=1, but {reason}.")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with artifacts, and what Python computed with them."""
    require()
    folder = tmp_path_factory.mktemp("javascript")
    for make in (_make_training, _make_dtypes, _make_page):
        naming.reset_names()  # state is told apart by names, which count up in a process
        make(folder)
    return folder


def _make_training(folder: Path) -> None:
    training = Training()
    training.restart_masks()
    batch = ot.TensorSpec((None, FEATURES)), ot.TensorSpec((None,), "int64")
    evaluate = ot.function(_evaluation(training), input_signature=batch)
    training.step.export(folder / "training", *batch, model=training.model, evaluation=evaluate)
    session = ot.TrainingSession(folder / "training")
    data = batches(20, last=5)
    results = []
    for i, (x, y) in enumerate(data):
        if i == 10:
            session.save(folder / "middle.safetensors")
        results.append(session.step(x=x, y=y))
    evaluation = session.evaluate([{"x": x, "y": y} for x, y in data])
    state = session.state_dict()
    for variable in training.model.variables:
        variable.assign(state[variable.path])
    output = training.model(data[0][0]).numpy()
    assert session.manifest.inference is not None
    expected = {
        "batches": [{"x": x.tolist(), "y": y.tolist()} for x, y in data],
        "losses": [float(r["loss"]) for r in results],
        "accuracies": [float(r["accuracy"]) for r in results],
        "generator": [str(n) for n in state["global_seed_generator"]],
        "inferenceInput": session.manifest.inference.inputs[0].name,
        "output": output.ravel().tolist(),
        "evaluation": {name: array.tolist() for name, array in evaluation.items()},
        "outputShape": [len(data[0][0]), CLASSES],
    }
    (folder / "training.json").write_text(json.dumps(expected))


class _Largest(ot.Metric):
    """The largest number so far, which begins below all others."""

    def __init__(self) -> None:
        super().__init__(name="largest")
        start = ot.initializers.Constant(-np.inf)
        self.value = self.add_variable((), initializer=start, name="value")

    def update_state(self, values: Any) -> None:
        self.value.assign(ot.ops.maximum(self.value, ot.ops.max(values)))

    def result(self) -> Any:
        return self.value


def _evaluation(training: Training) -> Any:
    """Results of every kind: of metrics, also of the training's own; of each batch; of each row."""
    largest = _Largest()
    correct = ot.metrics.SparseCategoricalAccuracy()

    def evaluate(x: Any, y: Any) -> dict[str, Any]:
        logits = training.model(x, training=False)
        correct.update_state(y, logits)
        largest.update_state(logits)
        training.accuracy.update_state(y, logits)
        return {
            "accuracy": correct.result(),
            "same": training.accuracy.result(),
            "largest": largest.result(),
            "loss": training.loss(y, logits),
            "means": ot.ops.mean(logits, axis=0),
            "half": ot.ops.cast(ot.ops.mean(logits, axis=0), "float16"),
            "count": ot.ops.sum(ot.ops.cast(y == 1, "int64")),
            "logits": logits,
            "classes": ot.ops.argmax(logits, axis=-1),
        }

    return evaluate


def _make_dtypes(folder: Path) -> None:
    """A step with inputs, state and results of every dtype."""
    variables = {
        name: ot.Variable(np.asarray([0, 1], name), trainable=False, name=f"v_{name}", dtype=name)
        for name in DTYPES
    }

    @ot.function
    def step(x: dict[str, Any]) -> dict[str, Any]:
        results = {}
        for name, variable in variables.items():
            results[f"was_{name}"] = variable.value
            results[f"same_{name}"] = ot.ops.reshape(x[name], (2, 1))
            results[f"first_{name}"] = x[name][0]
            variable.assign(x[name])
        return results

    step.export(folder / "dtypes", {name: ot.TensorSpec((2,), name) for name in DTYPES})
    # The edges of what a dtype holds, where JavaScript's numbers have them.
    values: dict[str, list[Any]] = {name: [1.5, -2.25] for name in DTYPES if "float" in name}
    for name in DTYPES:
        if "int" in name:
            limits = np.iinfo(name)
            values[name] = [max(limits.min, -(2**53)), min(limits.max, 2**53)]
    values["bool"] = [True, False]
    inputs = {f"x.{name}": np.asarray(values[name], name) for name in DTYPES}
    session = ot.TrainingSession(folder / "dtypes")
    session.step(**inputs)
    found = {}
    for name, array in session.step(**inputs).items():
        bits = array.view(np.uint16) if array.dtype == np.float16 and array.ndim else array
        bits = bits.astype(np.uint8) if array.dtype == np.bool_ and array.ndim else bits
        found[name] = [_text(v) for v in bits.ravel()] if array.ndim else _text(bits)
    session.save(folder / "dtypes.safetensors")
    inputs_json = {f"x.{name}": values[name] for name in DTYPES}
    (folder / "dtypes.json").write_text(json.dumps({"inputs": inputs_json, "found": found}))


def _make_page(folder: Path) -> None:
    """What the example's page trains, by its own script."""
    spec = importlib.util.spec_from_file_location(
        "make_artifact", ROOT / "examples" / "browser" / "make_artifact.py"
    )
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    accuracy = script.make(folder / "page")
    assert 0.5 < accuracy < 0.95, "it knows a little, and not everything"


def _text(value: Any) -> str:
    """A number as JavaScript's String writes it."""
    plain = value.item()
    return json.dumps(int(plain) if isinstance(plain, float) and plain.is_integer() else plain)


def run_node(script: str, fixture: Path, *, seconds: float = 100, **environment: str) -> None:
    """Run one file of tests with Node's test runner."""
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", HERE / script],
        env={**os.environ, "ONNXTAPE_JS_FIXTURE": str(fixture), **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "# pass 0" not in done.stdout


def test_declarations() -> None:
    """TypeScript lets a program through that uses everything, and none of the mistakes in it."""
    require()
    done = subprocess.run(
        [MODULES / ".bin" / "tsc", "--project", HERE / "tsconfig.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_state_files(fixture: Path) -> None:
    run_node("safetensors.test.mjs", fixture)


def test_sessions_in_node(fixture: Path) -> None:
    run_node("session.test.mjs", fixture)
    # What JavaScript trained and saved, Python goes on with.
    session = ot.TrainingSession(fixture / "training")
    session.load(fixture / "from_javascript.safetensors")
    expected = ot.TrainingSession(fixture / "training")
    for x, y in batches(20, last=5):
        expected.step(x=x, y=y)
    found = load_state(fixture / "from_javascript.safetensors")
    for name, array in expected.state_dict().items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-4, err_msg=name)


def test_sessions_in_a_browser(fixture: Path) -> None:
    require(browser=True)
    assert CHROMIUM is not None
    run_node("browser.test.mjs", fixture, ONNXTAPE_CHROMIUM=CHROMIUM)


def test_the_example_in_node(fixture: Path, tmp_path: Path) -> None:
    def train() -> list[float]:
        script = ROOT / "examples" / "node" / "train.mjs"
        done = subprocess.run(
            ["node", script, fixture / "page" / "artifact", tmp_path / "state.safetensors"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [float(line.split()[-1]) for line in done.stdout.splitlines() if "loss" in line]

    first, second = train(), train()
    assert len(first) == 5
    assert first[-1] < first[0]
    assert second[0] < first[0], "it goes on from the file"
    ot.TrainingSession(fixture / "page" / "artifact").load(tmp_path / "state.safetensors")


def test_the_server_of_the_example(tmp_path: Path) -> None:
    """Needs no node: it makes the page's files, in a copy of the folder, and serves them."""
    page = shutil.copytree(
        ROOT / "examples" / "browser",
        tmp_path / "examples" / "browser",
        ignore=shutil.ignore_patterns("generated", "__pycache__"),
    )
    (tmp_path / "js" / "node_modules" / "onnxruntime-web").mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, page / "serve.py", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            for name, kind in (
                ("", "text/html"),
                ("page.js", "text/javascript"),
                ("generated/digits.json", "application/json"),
                ("generated/artifact/manifest.json", "application/json"),
            ):
                with urllib.request.urlopen(f"{address}{name}", timeout=20) as response:
                    assert response.headers.get_content_type() == kind
        finally:
            server.terminate()


def test_a_missing_thing_is_a_reason_to_skip_or_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("ONNXTAPE_REQUIRE_JS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is no node"):
        require()
    monkeypatch.setenv("ONNXTAPE_REQUIRE_JS", "1")
    with pytest.raises(pytest.fail.Exception, match="ONNXTAPE_REQUIRE_JS=1, but there is no node"):
        require()
