"""Checkpoint formats: open a source, allocate a target. They know nothing of families or layouts."""
