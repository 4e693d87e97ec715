"""docs/gradients.md is what the gradient table says."""

from __future__ import annotations

import onnx
import pytest

from tests.conformance import gradients_doc
from tests.conformance.node_cases import NEWEST_OPSET

pytestmark = pytest.mark.skipif(
    onnx.defs.onnx_opset_version() < NEWEST_OPSET, reason=f"this onnx knows no opset {NEWEST_OPSET}"
)


def test_every_operator_of_onnx_has_an_answer() -> None:
    assert gradients_doc.unanswered() == []


def test_every_gradient_is_tested_by_some_input() -> None:
    rows = [line.split(" | ") for line in gradients_doc.text().splitlines() if "| rule |" in line]
    assert [row[0] for row in rows if not row[2]] == []
    assert len(rows) > 100


def test_the_document_is_up_to_date() -> None:
    written = gradients_doc.FILE.read_text()
    assert written == gradients_doc.text(), (
        "write it again: python -m tests.conformance.gradients_doc"
    )
