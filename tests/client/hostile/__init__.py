"""Servers that answer with whatever harms, and a good client beside the one that has called them."""
