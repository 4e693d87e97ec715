"""What manifest.json says: a description of an artifact, as dataclasses and as JSON."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

from onnxtape.runtime.dtypes import DTYPES
from onnxtape.runtime.errors import ArtifactError

FORMAT = "onnxtape-artifact"
FORMAT_VERSION = 1

TRAINING_FILE = "training.onnx"
INFERENCE_FILE = "inference.onnx"
EVALUATION_FILE = "evaluation.onnx"
STATE_FILE = "state.safetensors"

#: What a state entry is for.
Role: TypeAlias = Literal["parameter", "buffer", "optimizer", "metric", "generator"]
ROLES: tuple[str, ...] = get_args(Role)

#: The size of a dimension; a name where it may differ between calls, but must agree within one;
#: None where nothing is known.
Dimension: TypeAlias = int | str | None

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One batch input or one result."""

    name: str
    dtype: str
    shape: tuple[Dimension, ...]


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One tensor of the state.

    Attributes:
        name: its key in state.safetensors, and the name of its input in inference.onnx.
        input: the input of training.onnx that reads it.
        output: the output of training.onnx that holds its new value; None when a step only reads
            it.
        initial: of a metric, what all its elements begin at.
    """

    name: str
    input: str
    output: str | None
    dtype: str
    shape: tuple[int, ...]
    role: Role
    initial: float = 0.0

    def described(self) -> dict[str, Any]:
        """The entry in JSON, which has no infinities."""
        content = asdict(self)
        del content["initial"]
        if self.initial != 0:
            finite = math.isfinite(self.initial)
            content["initial"] = self.initial if finite else str(self.initial)
        return content


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the artifact, as it was written."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class InferenceEntry:
    """The batch inputs and the results of inference.onnx; its other inputs are state."""

    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]


@dataclass(frozen=True, slots=True)
class EvaluationEntry:
    """The batch inputs, the results and the state of evaluation.onnx.

    Attributes:
        state: metrics of its own, which begin anew, and entries of the training state, by name;
            one with an output is carried from batch to batch.
        failures, accumulated: as in `Manifest`.
    """

    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    state: tuple[StateEntry, ...]
    failures: Mapping[str, str] = field(default_factory=dict)
    accumulated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact holds.

    Attributes:
        failures: what it means when a node of training.onnx fails, by the node's name, where that
            is known: that a target is no class, say.
        accumulated: the results that metrics keep, so that they are of all batches since those
            began; the others are of one batch.
    """

    producer: str
    opset: int
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    state: tuple[StateEntry, ...]
    inference: InferenceEntry | None
    files: Mapping[str, FileEntry]
    evaluation: EvaluationEntry | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    accumulated: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The text of manifest.json."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        content["state"] = [entry.described() for entry in self.state]
        if self.evaluation is not None:
            content["evaluation"]["state"] = [e.described() for e in self.evaluation.state]
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read and check the text of manifest.json.

        Raises:
            ArtifactError: it is no JSON, no manifest, of a newer format, or contradicts itself.
        """
        try:
            content = json.loads(text, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"manifest.json is not valid JSON: {error}.") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ArtifactError(f'manifest.json does not say "format": "{FORMAT}".')
        version = _at(content, "format_version", "manifest.json", _whole)
        if version > FORMAT_VERSION:
            raise ArtifactError(
                f"The artifact has format_version {version}, and this onnxtape reads up to "
                f"{FORMAT_VERSION}. It was written by {content.get('producer')!r}: "
                "`pip install --upgrade onnxtape`."
            )
        manifest = cls(
            producer=_at(content, "producer", "manifest.json", _text),
            opset=_at(content, "opset", "manifest.json", _whole),
            inputs=_at(content, "inputs", "manifest.json", _each(_tensor)),
            outputs=_at(content, "outputs", "manifest.json", _each(_tensor)),
            state=_at(content, "state", "manifest.json", _each(_state)),
            inference=_at(content, "inference", "manifest.json", _inference),
            files=_at(content, "files", "manifest.json", _files),
            evaluation=_evaluation(content.get("evaluation"), "'evaluation' in manifest.json"),
            failures=_texts(content.get("failures"), "'failures' in manifest.json"),
            accumulated=_accumulated(content, "manifest.json"),
        )
        manifest.check()
        return manifest

    def check(self) -> None:
        """Require that no two names collide and that the files belong to the description.

        Raises:
            ArtifactError: with the names that collide, or the file that is missing or too much.
        """
        state = [entry.name for entry in self.state]
        results = [entry.name for entry in self.outputs]
        new_state = [entry.output for entry in self.state if entry.output is not None]
        _require_distinct("state entries", state)
        _require_distinct(
            f"inputs of {TRAINING_FILE}",
            [entry.name for entry in self.inputs] + [entry.input for entry in self.state],
        )
        _require_distinct(f"outputs of {TRAINING_FILE}", results + new_state)
        _require_distinct("results and state entries", results + state)
        needed = {TRAINING_FILE, STATE_FILE}
        if self.inference is not None:
            needed.add(INFERENCE_FILE)
            _require_distinct(
                f"inputs of {INFERENCE_FILE}",
                [entry.name for entry in self.inference.inputs] + state,
            )
            _require_distinct(
                f"outputs of {INFERENCE_FILE}", [entry.name for entry in self.inference.outputs]
            )
        elif INFERENCE_FILE in self.files:
            raise ArtifactError(
                f'manifest.json lists the file {INFERENCE_FILE}, but says "inference": null.'
            )
        if self.evaluation is not None:
            needed.add(EVALUATION_FILE)
            self._check_evaluation(self.evaluation)
        elif EVALUATION_FILE in self.files:
            raise ArtifactError(
                f"manifest.json lists the file {EVALUATION_FILE}, but does not describe it."
            )
        if missing := sorted(needed - set(self.files)):
            raise ArtifactError(f"manifest.json does not list the file {missing[0]}.")

    def _check_evaluation(self, evaluation: EvaluationEntry) -> None:
        _require_distinct("state entries of the evaluation", [e.name for e in evaluation.state])
        _require_distinct(
            f"inputs of {EVALUATION_FILE}",
            [e.name for e in evaluation.inputs] + [e.input for e in evaluation.state],
        )
        _require_distinct(
            f"outputs of {EVALUATION_FILE}",
            [e.name for e in evaluation.outputs]
            + [e.output for e in evaluation.state if e.output is not None],
        )
        trained = {entry.name: (entry.dtype, entry.shape) for entry in self.state}
        for entry in evaluation.state:
            if entry.role != "metric" and trained.get(entry.name) != (entry.dtype, entry.shape):
                raise ArtifactError(
                    f"The evaluation reads the state entry {entry.name!r} as {entry.dtype}"
                    f"{list(entry.shape)}, which the training step does not have."
                )


_Reader: TypeAlias = Callable[[object, str], _T]


def _at(content: dict[str, Any], key: str, where: str, read: _Reader[_T]) -> _T:
    """Read the value under a key that has to be there."""
    if key not in content:
        raise ArtifactError(f"{where} has no {key!r}.")
    return read(content[key], f"{key!r} in {where}")


def _whole(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ArtifactError(f"{where} must be a whole number, not {_shown(value)}.")
    return value


def _number(value: object, where: str) -> float:
    if value in ("inf", "-inf") or (
        isinstance(value, (int, float)) and not isinstance(value, bool)
    ):
        return float(cast(float, value))
    raise ArtifactError(f"{where} must be a number, 'inf' or '-inf', not {_shown(value)}.")


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ArtifactError(f"{where} must be a text, not {_shown(value)}.")
    return value


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ArtifactError(f"{where} must be an object, not {_shown(value)}.")
    return value


def _each(read: _Reader[_T]) -> _Reader[tuple[_T, ...]]:
    """A reader of lists whose items are read by `read`."""

    def read_all(value: object, where: str) -> tuple[_T, ...]:
        if not isinstance(value, list):
            raise ArtifactError(f"{where} must be a list, not {_shown(value)}.")
        return tuple(read(item, f"item {index} of {where}") for index, item in enumerate(value))

    return read_all


def _one_of(choices: Collection[str]) -> _Reader[str]:
    def read(value: object, where: str) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ArtifactError(
                f"{where} must be one of {', '.join(choices)}, not {_shown(value)}."
            )
        return value

    return read


def _dimension(value: object, where: str) -> Dimension:
    if value is None or (isinstance(value, str) and value):
        return value
    return _whole(value, where)


def _optional_text(value: object, where: str) -> str | None:
    return None if value is None else _text(value, where)


def _tensor(value: object, where: str) -> TensorEntry:
    content = _object(value, where)
    return TensorEntry(
        name=_at(content, "name", where, _text),
        dtype=_at(content, "dtype", where, _one_of(DTYPES)),
        shape=_at(content, "shape", where, _each(_dimension)),
    )


def _state(value: object, where: str) -> StateEntry:
    content = _object(value, where)
    return StateEntry(
        name=_at(content, "name", where, _text),
        input=_at(content, "input", where, _text),
        output=_at(content, "output", where, _optional_text),
        dtype=_at(content, "dtype", where, _one_of(DTYPES)),
        shape=_at(content, "shape", where, _each(_whole)),
        role=cast(Role, _at(content, "role", where, _one_of(ROLES))),
        initial=_number(content.get("initial", 0), f"'initial' in {where}"),
    )


def _inference(value: object, where: str) -> InferenceEntry | None:
    if value is None:
        return None
    content = _object(value, where)
    return InferenceEntry(
        inputs=_at(content, "inputs", where, _each(_tensor)),
        outputs=_at(content, "outputs", where, _each(_tensor)),
    )


def _evaluation(value: object, where: str) -> EvaluationEntry | None:
    if value is None:
        return None
    content = _object(value, where)
    return EvaluationEntry(
        inputs=_at(content, "inputs", where, _each(_tensor)),
        outputs=_at(content, "outputs", where, _each(_tensor)),
        state=_at(content, "state", where, _each(_state)),
        failures=_texts(content.get("failures"), f"'failures' in {where}"),
        accumulated=_accumulated(content, where),
    )


def _texts(value: object, where: str) -> dict[str, str]:
    # Artifacts written before there were any have none.
    content = {} if value is None else _object(value, where)
    return {name: _text(text, f"{name!r} in {where}") for name, text in content.items()}


def _accumulated(content: dict[str, Any], where: str) -> tuple[str, ...]:
    # As with failures.
    return _each(_text)(content.get("accumulated", []), f"'accumulated' in {where}")


def _files(value: object, where: str) -> dict[str, FileEntry]:
    files = {}
    for name, entry in _object(value, where).items():
        # Windows forbids or reinterprets more than this, and none of it is a plain name.
        if not re.fullmatch(r"[\w][\w. -]*", name) or name.endswith((".", " ")):
            raise ArtifactError(
                f"{where} names {name!r}: a file of an artifact has a plain name and lies in its "
                "folder."
            )
        content = _object(entry, f"{name!r} in {where}")
        sha256 = _at(content, "sha256", f"{name!r} in {where}", _text)
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ArtifactError(f"The sha256 of {name!r} in {where} is not 64 hexadecimal digits.")
        files[name] = FileEntry(sha256, _at(content, "size", f"{name!r} in {where}", _whole))
    return files


def _require_distinct(what: str, names: list[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ArtifactError(
            f"The {what} must all have different names; used more than once: "
            f"{', '.join(map(repr, repeated))}."
        )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("an object has the same key twice")
    return content


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:60] + "..."
