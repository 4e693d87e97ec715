"""docs/keras-parity.md says what is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reference import keras_parity, keras_signatures


def test_the_document_is_up_to_date() -> None:
    written = keras_parity.DOCUMENT.read_text(encoding="utf-8")
    assert written == keras_parity.render(), (
        f"docs/keras-parity.md is out of date; `{keras_parity.COMMAND}` writes it anew"
    )


@pytest.mark.parametrize("name", keras_parity.ELSEWHERE)
def test_other_names_are_there(name: str) -> None:
    assert keras_parity.resolve(keras_parity.ELSEWHERE[name].removeprefix("ot.")) is not None


def test_reasons_are_given_for_names_of_keras() -> None:
    stored = json.loads(
        Path(keras_parity.__file__).with_name("keras_names.json").read_text("utf-8")
    )
    known = {f"{module}.{name}" for module, names in stored["names"].items() for name in names}
    assert known.issuperset(keras_parity.REASONS)
    assert known.issuperset(keras_parity.ELSEWHERE)


def test_arguments_are_those_of_keras() -> None:
    assert keras_signatures.all_differences() == {}


@pytest.mark.parametrize("name", keras_signatures.EXCEPTIONS)
def test_excepted_arguments_do_differ(name: str) -> None:
    stored = keras_signatures.stored()
    assert keras_parity.resolve(name) is not None
    assert list(keras_signatures.differences(name, stored[name]))


def test_differences_are_seen() -> None:
    ours = "layers.Dense"
    keras = [["units", "POSITIONAL_OR_KEYWORD", None], ["activation", "KEYWORD_ONLY", "'relu'"]]
    assert list(keras_signatures.differences(ours, keras)) == ["activation=None, not 'relu'"]
    keras = [["use_bias", "POSITIONAL_OR_KEYWORD", None], ["depth", "KEYWORD_ONLY", "1"]]
    assert list(keras_signatures.differences(ours, keras)) == [
        "no argument depth",
        "units stands where Keras has use_bias",
    ]
