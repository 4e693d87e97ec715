"""The programs in the README and the documentation run as they stand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxtape.runtime.manifest import ROLES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def run_blocks(folder: Path, *pages: Path) -> str:
    """What the Python blocks of some pages print, as one program, run in `folder`."""
    blocks: list[str] = []
    for page in pages:
        found = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        assert len(found) >= 2, page
        blocks += found
    program = folder / "program.py"
    program.write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, "-W", "error", program], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme(tmp_path: Path) -> None:
    assert "epoch 4" in run_blocks(tmp_path, ROOT / "README.md")
    assert (tmp_path / "artifact" / "manifest.json").is_file()
    assert (tmp_path / "model.onnx").is_file()


def test_training_loops_and_artifacts(tmp_path: Path) -> None:
    run_blocks(tmp_path, DOCS / "training.md", DOCS / "artifacts.md")
    written = ("model.onnx", "model.svg", "step.svg", "trained.safetensors")
    assert [name for name in written if not (tmp_path / name).is_file()] == []


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The manifest of an artifact that has everything."""
    import onnxtape as ot

    model = ot.Sequential([ot.Input((3,)), ot.layers.Dense(1)])
    optimizer, metric = ot.optimizers.Adam(), ot.metrics.MeanSquaredError()

    @ot.function
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(x)
            loss = ot.ops.mean(y**2)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        metric.update_state(y * 0, y)
        return {"loss": loss, "mse": metric.result()}

    spec = ot.TensorSpec((None, 3))

    @ot.function(input_signature=[spec])
    def evaluate(x: Any) -> Any:
        y = model(x)
        metric.update_state(y * 0, y)
        return {"mse": metric.result()}

    folder = tmp_path_factory.mktemp("artifacts") / "artifact"
    step.export(folder, spec, model=model, evaluation=evaluate)
    return json.loads((folder / "manifest.json").read_text())


def keys(content: Any) -> Iterator[str]:
    """Every key but the names of files and of nodes."""
    if isinstance(content, list):
        for item in content:
            yield from keys(item)
    if isinstance(content, dict):
        for key, value in content.items():
            yield key
            yield from keys([*value.values()] if key in ("files", "failures") else value)


def test_every_key_of_a_manifest_is_specified(manifest: Any) -> None:
    page = (DOCS / "artifacts.md").read_text()
    found = {*keys(manifest)}
    assert {"inference", "evaluation", "role", "sha256"} <= found
    assert [key for key in sorted(found) if f"`{key}`" not in page] == []
    assert [role for role in ROLES if f"| `{role}` |" not in page] == []
    assert [file for file in manifest["files"] if f"`{file}`" not in page] == []
    assert manifest["evaluation"] is not None
    assert manifest["inference"] is not None


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([\w./-]+\.md)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name} links {target}"
