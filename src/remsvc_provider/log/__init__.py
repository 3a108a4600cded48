"""What a task's log shows of its commands, and how fast it is written."""
