"""The transport by libnghttp2: quick, and without gRPC's own library.

``session`` is a connection without input or output and ``call`` one call on it; ``endpoint`` says where a
connection leads, ``proxy`` and ``tls`` what may lie on the way, ``attempts`` when it is tried again. ``aio``,
``aio_connection`` and ``dial`` do all that for asyncio, ``blocking`` and ``blocking_dial`` for everything
else, without importing asyncio, or ``ssl`` where nothing is encrypted.
"""
