"""The task's log: what it shows of commands and their output, and how fast it is written."""
