"""What several tests of the frontend look at."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from onnxtape import compilation


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[ir.Model]:
    """The graphs that sessions were given to optimize."""
    models: list[ir.Model] = []
    made = compilation.model_to_run

    def noted(*args: Any, **options: Any) -> Any:
        model, split = made(*args, **options)
        models.append(model)
        return model, split

    monkeypatch.setattr(compilation, "model_to_run", noted)
    return models
