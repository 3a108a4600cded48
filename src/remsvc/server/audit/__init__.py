"""The audit log: who asked for what, what was decided, and what became of it."""
