"""The command line: one file a verb. Needs the ``cli`` extra."""
