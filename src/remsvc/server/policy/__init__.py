"""What each caller may run, and how much of it."""
