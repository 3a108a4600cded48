"""The HTTP/2 transport: how callers reach the server.

``server`` is what the rest of the server sees of it. ``listener`` accepts connections, ``tls_transport``
encrypts them, ``tls`` says what TLS has found out about their peers. ``connections`` knows them all,
``connection`` is one of them: what comes in and goes out. ``session`` is what its peer does, without input
or output, ``call`` one call in it, ``request_head`` how that begins, and ``ended_calls`` what is due after
its end. ``unread``, ``unsent``, ``waiting_answers``, and what is shared with the client
(:mod:`remsvc.http2`) see to it that no caller holds up the others; ``vanished_peers``, that nobody who goes
without a word fills the log. gRPC's own library has no part in any of it.
"""
