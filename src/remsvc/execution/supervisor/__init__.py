"""The process that starts, owns and reaps all commands on POSIX. Of the standard library only."""


def main(fd: int, state_dir: str, groups: str) -> None:
    """Run a supervisor as a server of version 1.1 asks for it, which may outlive an upgrade of its files.

    Until that server is restarted it starts supervisors of the new code, by the name that was theirs before.
    It is to be removed in the version after this one.
    """
    from remsvc.execution.supervisor.main import main as run

    run(fd, state_dir, groups)
