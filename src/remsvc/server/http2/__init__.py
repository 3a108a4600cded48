"""The HTTP/2 transport: how callers reach the server.

``listener`` accepts connections, ``tls`` encrypts them, ``connections`` knows them all, ``connection`` is
one of them, ``call`` one call on it. ``unread``, ``unsent``, and what it shares with the client see to it
that no caller holds up the others. gRPC's own library has no part in any of it.
"""
