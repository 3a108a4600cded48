"""Long searches for what breaks connections: damaged sessions, made from a seed, without end.

``make soak`` runs both searches for an hour: ``fuzz_connection`` against the server's connections,
``fuzz_engine`` against the engine below them, built with sanitizers. What they find is kept in ``corpus``,
which ``tests/attacks/test_soak_corpus.py`` plays again in every run of the tests.
"""
