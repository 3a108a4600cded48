"""Durable jobs: claimed on disk, run at most once, found again after a crash."""
