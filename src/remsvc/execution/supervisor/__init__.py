"""The process that starts, owns and reaps all commands on POSIX. Of the standard library only."""
