"""Bytes as they arrive: cut anywhere."""

from __future__ import annotations

from hypothesis import strategies as st

_SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=20)


def in_pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """``data`` cut into pieces of these sizes, which repeat."""
    pieces, position, turn = [], 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[position : position + size])
        position, turn = position + size, turn + 1
    return pieces


sizes = _SIZES | st.just([1]) | st.just([1 << 20])
"""Of pieces: a byte each, all at once, or anything between."""
