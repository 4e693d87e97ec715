import type { TrainingSession } from "./onnxtape.js";

/** Write the session's state to one safetensors file, whole or not at all. */
export function saveState(session: TrainingSession, path: string): Promise<void>;

/** Replace the session's state by what `saveState`, or Python's `TrainingSession.save`, wrote. */
export function loadState(session: TrainingSession, path: string): Promise<void>;
