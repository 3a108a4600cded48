"""Tests that run inside a Windows Python."""
