"""What several tests of the frontend look at."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from onnxtape import concrete


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[ir.Model]:
    """The graphs that sessions were given to optimize."""
    models: list[ir.Model] = []
    made = concrete._model_to_run

    def noted(*args: Any) -> ir.Model:
        models.append(made(*args))
        return models[-1]

    monkeypatch.setattr(concrete, "_model_to_run", noted)
    return models
