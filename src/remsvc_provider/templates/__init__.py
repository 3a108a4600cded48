"""The templates of commands: rendering them, and telling which may be rendered in a triggerer."""
