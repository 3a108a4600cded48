"""Tests that run on Linux against a Windows Python under Wine."""
