"""What every call passes before a service answers it, whatever transport carries it."""
