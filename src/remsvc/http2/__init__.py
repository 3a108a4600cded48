"""gRPC over HTTP/2 without input or output, for the server's and the client's side alike.

The engine for frames, header compression and flow control is libnghttp2, by the package ``ngh2``; only
:mod:`remsvc.http2.engine` knows that. What makes gRPC of HTTP/2 is small, and ours:
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""
