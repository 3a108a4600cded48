"""The distributions, and what they run on."""
