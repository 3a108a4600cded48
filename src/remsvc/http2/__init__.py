"""gRPC over HTTP/2, for the server's and the client's side alike.

``input_turns`` and ``paced_input`` are for asyncio; everything else does no input or output. The engine for
frames, header compression and flow control is libnghttp2, by the package ``ngh2``; only
:mod:`remsvc.http2.engine` uses that. What makes gRPC of HTTP/2 is small, and ours:
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""
