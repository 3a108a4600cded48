"""A server on Windows, called from elsewhere. What both platforms promise is in the contract suite."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pexpect
import pytest

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc

from .conftest import Serve
from .windows_python import (
    DEADLINE,
    PYTHON,
    WindowsServer,
    environment,
    processes,
    remsvc,
    wait_until,
    windows_path,
)

_numbers = itertools.count(1000 + os.getpid() % 1000 * 10)


def sleep() -> tuple[str, str]:
    """A command that runs for a quarter of an hour or longer in a grandchild, and a text that tells it."""
    mark = f"ping -n {next(_numbers)} 127.0.0.1"
    return f"echo started& cmd /C {mark} >NUL", mark


@pytest.fixture
def stub(windows_server: WindowsServer) -> Iterator[RemSvc_pb2_grpc.RemSvcStub]:
    with grpc.insecure_channel(windows_server.target) as channel:
        yield RemSvc_pb2_grpc.RemSvcStub(channel)


def run(stub: RemSvc_pb2_grpc.RemSvcStub, cmd: str, **fields: object) -> RemSvc_pb2.RemResMsg:
    return stub.RemCmd(RemSvc_pb2.RemCmdMsg(cmd=cmd, **fields), timeout=DEADLINE)


def test_text_in_any_script_comes_and_goes(stub: RemSvc_pb2_grpc.RemSvcStub) -> None:
    code = "import sys; sys.stdout.buffer.write(sys.argv[1].encode())"
    assert run(stub, f'"{PYTHON}" -c "{code}" "\u00fc \u4e2d \U0001f600"').out == "\u00fc \u4e2d \U0001f600"


def test_text_in_the_consoles_code_page_comes_as_it_was_meant(stub: RemSvc_pb2_grpc.RemSvcStub) -> None:
    assert run(stub, "echo caf\u00e9").out == "caf\u00e9\r\n"


def test_powershell(stub: RemSvc_pb2_grpc.RemSvcStub) -> None:
    """Wine's powershell.exe does nothing, successfully."""
    assert run(stub, "Get-Date", cmdtyp=1).rc == 0


def test_several_lines_are_refused_rather_than_cut_to_the_first(stub: RemSvc_pb2_grpc.RemSvcStub) -> None:
    answer = run(stub, "echo 1\necho 2")
    assert (answer.rc, answer.out) == (1, "")
    assert answer.err == "cmd.exe runs one line only: join the lines with &, or use PowerShell"


def test_a_command_too_long_for_cmd_exe_is_an_invalid_argument(stub: RemSvc_pb2_grpc.RemSvcStub) -> None:
    assert run(stub, "echo " + "x" * 8100).rc == 0
    with pytest.raises(grpc.RpcError) as error:
        run(stub, "echo " + "x" * 8200)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "cmd.exe takes at most 8191" in error.value.details()


def test_surroundings(stub: RemSvc_pb2_grpc.RemSvcStub) -> None:
    variables = dict(line.split("=", 1) for line in run(stub, "set").out.splitlines())
    names = {name.upper() for name in variables}
    assert {"SYSTEMROOT", "COMSPEC", "PATH", "PATHEXT", "TEMP", "USERPROFILE"} <= names
    assert "HIDDEN" not in names
    assert run(stub, "cd").out.strip() == variables["USERPROFILE"]


def test_another_user_is_ignored(stub: RemSvc_pb2_grpc.RemSvcStub) -> None:
    assert run(stub, "echo %USERNAME%", cmdusr="nobody").out == run(stub, "echo %USERNAME%").out


def test_the_time_limit_ends_grandchildren(windows_serve: Serve) -> None:
    server = windows_serve("--cmd-timeout-ms", "3000")
    command, mark = sleep()
    with grpc.insecure_channel(server.target) as channel:
        answer = run(RemSvc_pb2_grpc.RemSvcStub(channel), command)
    assert (answer.rc, answer.out, answer.err) == (1, "started\r\n", "process timed out")
    wait_until(lambda: not processes(mark))


def test_a_client_that_goes_away_ends_its_command(stub: RemSvc_pb2_grpc.RemSvcStub) -> None:
    command, mark = sleep()
    call = stub.RemCmd.future(RemSvc_pb2.RemCmdMsg(cmd=command))
    wait_until(lambda: processes(mark))
    call.cancel()
    wait_until(lambda: not processes(mark))


def test_disconnects_leave_nothing_behind(
    stub: RemSvc_pb2_grpc.RemSvcStub, windows_server: WindowsServer
) -> None:
    folder = Path(f"/proc/{windows_server.process.pid}")

    def resources() -> tuple[int, int]:
        return len(list((folder / "task").iterdir())), len(list((folder / "fd").iterdir()))

    def disconnect(count: int) -> None:
        command, mark = sleep()
        calls = [stub.RemCmd.future(RemSvc_pb2.RemCmdMsg(cmd=command)) for _ in range(count)]
        wait_until(lambda: processes(mark))
        for call in calls:
            call.cancel()
        wait_until(lambda: not processes(mark))

    disconnect(10)  # what is allocated once is there now
    before = resources()
    for _ in range(4):
        disconnect(10)
    # The system's own thread pool may breathe a little.
    wait_until(lambda: all(now <= then + 10 for now, then in zip(resources(), before, strict=True)))


def test_much_output_is_cut_and_needs_little_memory(
    stub: RemSvc_pb2_grpc.RemSvcStub, windows_server: WindowsServer
) -> None:
    def peak_memory() -> int:
        status = Path(f"/proc/{windows_server.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    before = peak_memory()
    code = "import os; [os.write(1, b'x' * 1000000) for _ in range(500)]"
    out = run(stub, f'"{PYTHON}" -c "{code}"').out
    assert out == "x" * 262144 + "\n\x01[remSvc: output truncated at 262144 bytes]\x01\n"
    assert peak_memory() < before + 50_000_000


def test_many_commands_at_once_while_ping_answers(stub: RemSvc_pb2_grpc.RemSvcStub) -> None:
    calls = [
        stub.RemCmd.future(RemSvc_pb2.RemCmdMsg(cmd=f"echo {n}", tid=n), timeout=DEADLINE) for n in range(100)
    ]
    pings = 0
    while not all(call.done() for call in calls):
        stub.Ping(RemSvc_pb2.PingMsg(seq=pings), timeout=DEADLINE)
        pings += 1
    assert pings > 1
    assert [call.result().out for call in calls] == [f"{n}\r\n" for n in range(100)]


def test_a_configuration_with_backslashes(windows_serve: Serve, tmp_path: Path) -> None:
    config = tmp_path / "server.ini"
    log = tmp_path / "server.log"
    config.write_text(
        "[server]\ncmd_timeout_ms = 20000\n[denylist]\nsystem = C:\\\\Windows\n"
        f"[log]\nfile = ${{LOGS}}\\{log.name}\n",
        encoding="utf-8",
    )
    server = windows_serve("--config", windows_path(config), LOGS=windows_path(tmp_path))
    with grpc.insecure_channel(server.target) as channel:
        stub = RemSvc_pb2_grpc.RemSvcStub(channel)
        assert run(stub, "echo %CD%").rc == 0
        with pytest.raises(grpc.RpcError) as error:
            run(stub, "del C:\\Windows\\win.ini")
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    wait_until(lambda: "command refused" in log.read_text(encoding="utf-8"))


def test_a_port_in_use(windows_server: WindowsServer) -> None:
    done = remsvc("serve", "--port", windows_server.target.rpartition(":")[2])
    assert done.returncode == 255
    assert "cannot listen on 127.0.0.1:" in done.stderr


@pytest.mark.parametrize("interrupts", [1, 2])
def test_ctrl_c_lets_the_command_finish_and_a_second_one_ends_it(interrupts: int) -> None:
    terminal = pexpect.spawn(
        "wine", [PYTHON, "-m", "remsvc", "serve", "--port", "0"], env=environment(), timeout=DEADLINE
    )
    try:
        terminal.expect(rb"listening on ([\d.]+:\d+)")
        mark = f"ping -n {'4' if interrupts == 1 else next(_numbers)} 127.0.0.1"
        with grpc.insecure_channel(terminal.match[1].decode()) as channel:
            stub = RemSvc_pb2_grpc.RemSvcStub(channel)
            call = stub.RemCmd.future(RemSvc_pb2.RemCmdMsg(cmd=f"{mark} >NUL& echo finished"))
            wait_until(lambda: processes(mark))
            for _ in range(interrupts):
                terminal.send("\x03")
                terminal.expect("stopping signal=SIGINT") if interrupts == 1 else None
            if interrupts == 1:
                assert call.result(DEADLINE).out == "finished\r\n"
            else:
                assert call.exception(DEADLINE).code() is not grpc.StatusCode.OK
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert (terminal.exitstatus, terminal.signalstatus) == (0, None)
        wait_until(lambda: not processes(mark))
    finally:
        if terminal.isalive():
            terminal.kill(signal.SIGKILL)
        terminal.close()
