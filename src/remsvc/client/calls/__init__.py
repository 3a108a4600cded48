"""Makes the calls that the clients' methods consist of: connects, sends, and repeats what is safe to repeat.

Each client has one object of these. Its methods say with it what is sent, and what the answer means.
"""
