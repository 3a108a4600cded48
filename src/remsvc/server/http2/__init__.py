"""The HTTP/2 transport: how callers reach the server.

The modules, from the outside to the inside; each imports only those below it:

- ``server`` is what the rest of the server sees: start, and stop with a grace period.
- ``listener`` accepts connections. ``tls_transport`` encrypts them.
- ``connections`` knows all connections: it closes those that keep the server waiting, and some of them where
  there are too many.
- ``connection`` is one of them: it moves bytes in and out, and decides when to close.
- ``session`` is what the peer does on it: its calls. It has no input or output of its own.
- ``shared`` is what all connections have in common. ``answering`` runs the tasks that answer calls.
- ``call`` is one call, ``request_head`` its first headers, ``ended_calls`` what is still due after its end.
- ``unread``, ``unsent``, ``waiting_answers`` and ``opening_windows`` bound what requests and answers take, so
  that no caller holds up the others.
- ``tls`` reads from a finished handshake what the peer has shown. ``vanished_peers`` keeps peers that go
  without a word from filling the log.

gRPC's own library has no part in any of it.
"""
