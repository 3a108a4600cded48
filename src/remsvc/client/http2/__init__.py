"""The transport that speaks HTTP/2 by libnghttp2. It is quick, and does not load gRPC's own library.

- ``session`` is the state of a connection and ``call`` that of one call on it. Neither uses a socket.
- ``endpoint`` says where a connection leads, ``proxy`` and ``tls`` how it gets there, and ``attempts`` when
  the next attempt to connect is due.
- ``aio``, ``aio_connection`` and ``dial`` put these together for asyncio.
- ``blocking`` and ``blocking_dial`` do so for blocking calls. They never import asyncio, and import ``ssl``
  only where a connection is encrypted, so that the command line starts faster.
"""
