"""What goes wrong for real: killed processes, full disks, broken connections.

Every test counts actual runs by lines that the commands append to a file, and compares every byte of
output. ``REMSVC_FAULT_ROUNDS`` says how many rounds there are where the instant is left to chance
(``make faults``: 200); the seed of each is printed.
"""
