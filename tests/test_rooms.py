"""The rooms know each other only as far as they may, and the package is what pyproject says."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnxtape as ot

ROOT = Path(__file__).parent.parent
ROOMS = {"frontend": "onnxtape", "compiler": "onnxtape.compiler", "runtime": "onnxtape.runtime"}
#: What `import onnxtape` must not load: each costs a tenth of a second or more, or may be missing.
HEAVY = ("onnxruntime", "onnx", "onnx_ir", "sympy", "networkx", "rich", "matplotlib", "safetensors")


def sources(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found, f"{room} holds no Python files"
    return found


def imports(file: Path) -> Iterator[tuple[int, str, int]]:
    """What a file imports: the line, the module or name in it, and the dots in front."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                (node.lineno, f"{node.module}.{alias.name}", node.level) for alias in node.names
            )


def room_of(module: str) -> str | None:
    """The room that an import of `module` (or of a name in it) reaches into."""
    parts = module.split(".")
    if parts[0] != "onnxtape":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "frontend"


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [("compiler", {"frontend", "runtime"}), ("runtime", {"frontend", "compiler"})],
)
def test_a_room_imports_only_what_it_may_know(room: str, forbidden: set[str]) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in sources(room)
        for line, module, _ in imports(file)
        if room_of(module) in forbidden
    ]
    assert not wrong


def test_the_compiler_opens_no_session() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in sources("compiler")
        for line, module, _ in imports(file)
        if module.split(".")[0] == "onnxruntime"
    ]
    assert not wrong


@pytest.mark.parametrize("room", ROOMS)
def test_imports_are_absolute_and_by_the_packages_name(room: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {'.' * dots}{module}"
        for file in sources(room)
        for line, module, dots in imports(file)
        if dots or module.split(".")[0] in ROOMS
    ]
    assert not wrong


def test_the_rules_see_what_they_forbid(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from onnxtape import tensor\n    import onnxtape.runtime.step\n")
    assert [room_of(module) for _, module, _ in imports(file)] == ["frontend", "runtime"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, onnxtape; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "onnxtape" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("module", ["onnxtape.compiled_function", "onnxtape.functional"])
def test_function_is_the_decorator_whatever_was_imported_before(module: str) -> None:
    program = f"import {module}, onnxtape as ot; print(ot.function(lambda: 1)())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_the_package_list_is_the_folders() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    assert setuptools["package-dir"] == {package: room for room, package in ROOMS.items()}
    folders = {
        ".".join([ROOMS[room], *file.parent.relative_to(ROOT / room).parts])
        for room in ROOMS
        for file in sources(room)
        if file.name == "__init__.py"
    }
    assert set(setuptools["packages"]) == folders
    assert len(setuptools["packages"]) == len(folders), "a package is listed twice"


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert ot.__version__ == project["project"]["version"]


def test_every_public_name_can_be_had() -> None:
    for name in ot.__all__:
        assert getattr(ot, name) is not None
    assert sorted(ot.__all__) == ot.__all__
    assert dir(ot) == sorted(ot.__all__)  # and no internals
    with pytest.raises(AttributeError, match="module 'onnxtape' has no attribute 'nothing'"):
        _ = ot.nothing


@pytest.mark.parametrize("room", ["compiler", "runtime"])
def test_a_room_lists_what_it_offers_and_no_internals(room: str) -> None:
    module = importlib.import_module(f"onnxtape.{room}")
    assert dir(module) == sorted(module.__all__)
    for name in dir(module):
        assert getattr(module, name) is not None


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (
            "onnxtape",
            "Tensor Variable TensorSpec convert_to_tensor GradientTape stop_gradient function "
            "run_functions_eagerly set_seed ops random layers losses metrics initializers "
            "optimizers Model Sequential Input data save_checkpoint restore_checkpoint "
            "TrainingSession",
        ),
        ("onnxtape.tensor.Tensor", "shape dtype numpy item __array__ __dlpack__"),
        ("onnxtape.variable.Variable", "assign assign_add assign_sub numpy value"),
        ("onnxtape.tape.GradientTape", "watch gradient stop_recording reset"),
        (
            "onnxtape.compiled_function.Function",
            "get_concrete_function trace_count fallback_reason export",
        ),
        ("onnxtape.concrete.ConcreteFunction", "model"),
        (
            "onnxtape.optimizers.Optimizer",
            "apply apply_gradients learning_rate variables",
        ),
        (
            "onnxtape.models.Model",
            "summary count_params losses weights trainable_weights trainable_variables",
        ),
        ("onnxtape.runtime.TrainingSession", "step state_dict save export_inference"),
        (
            "onnxtape.data.Dataset",
            "from_tensor_slices shuffle batch map prefetch repeat take",
        ),
    ],
)
def test_the_contracts_names_are_there(owner: str, names: str) -> None:
    module, _, member = owner.rpartition(".")
    holder = getattr(importlib.import_module(module), member) if module else ot
    assert [name for name in names.split() if not hasattr(holder, name)] == []
