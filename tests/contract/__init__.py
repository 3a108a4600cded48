"""The contract of wire version 1, tested from outside.

Each test states one sentence of what servers of version 1 promise (its docstring quotes it) and
checks it over real gRPC, with a client built from nothing but the descriptors in :mod:`.wire`.

By default the suite starts its own ``remsvc serve`` processes. With ``REMSVC_CONTRACT_TARGET`` set
to ``host:port`` it tests the server that runs there (with no configuration of its own) instead,
leaving out the tests that need another configuration; ``REMSVC_CONTRACT_PLATFORM=windows`` says
that this server runs on Windows.
"""
