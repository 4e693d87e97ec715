/** The kinds of mistake, one class each. They are those of `onnxtape.runtime`. */

export class OnnxtapeError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** What was loaded is not an artifact, or not an intact one. */
export class ArtifactError extends OnnxtapeError {}

/** A state file cannot be read, or holds the state of something else. */
export class CheckpointError extends OnnxtapeError {}

/** A value handed to a graph has the wrong name, dtype or shape. */
export class InputError extends OnnxtapeError {}

/** ONNX Runtime refused to load a graph, or failed while running it. */
export class ExecutionError extends OnnxtapeError {}
