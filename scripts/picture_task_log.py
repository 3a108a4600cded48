"""Take the README's picture of a live task log: ``docs/images/task-log.png``.

A real Airflow, a real server, and Chromium, which looks at a task's log while its command runs. It takes
orders in its DevTools protocol through a pipe, so neither a driver nor a library is needed.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from local_airflow import LocalAirflow, end_children
from secured_server import SecuredServer

if TYPE_CHECKING:
    from typing_extensions import Self

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "task-log.png"
DAG_ID = TASK_ID = "backup"
DAG = f"""
from airflow.sdk import DAG
from remsvc_provider.operators.remsvc import RemSvcOperator

with DAG("{DAG_ID}", schedule=None):
    RemSvcOperator(
        task_id="{TASK_ID}",
        commands=[
            {{"cmd": "for table in accounts orders items; do echo dumping $table; sleep 0.3; done"}},
            {{"cmd": "for n in $(seq 1 90); do echo copying file $n of 90; sleep 1; done"}},
        ],
    )
"""
SEEN = "copying file 6 of 90"
"""Once this is in the log, the picture is taken: 84 lines are still to come."""
WIDTH, HEIGHT = 1180, 640
UNFOLD = """
    [...document.querySelectorAll("*")]
        .filter((element) => element.textContent.startsWith("▶ Command 2"))
        .at(-1)?.click();
    document.body.innerText
"""
"""Opens the second command's group, where it is folded, and gives the page's text."""
_DEADLINE = 60.0


class Chromium:
    """A browser without a window, and one page in it. A context manager."""

    def __init__(self, program: str, profile: Path) -> None:
        there, orders = os.pipe()
        answers, back = os.pipe()
        self._process = subprocess.Popen(
            # It reads orders from descriptor 3, and answers on 4.
            [
                *("/bin/sh", "-c", 'in=$1 out=$2; shift 2; eval "exec \\"\\$@\\" 3<&$in 4>&$out"', "sh"),
                *(str(there), str(back), program, "--headless", "--no-sandbox", "--disable-gpu"),
                *("--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}"),
            ],
            pass_fds=(there, back),
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(back)
        self._orders = os.fdopen(orders, "wb", buffering=0)
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self._rest, self._number, self._session = b"", 0, ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._orders.close()
        self._answers.close()

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method of the protocol, and return its result.

        Raises:
            RuntimeError: it has failed, or the browser has ended.
        """
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._orders.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                if not (data := self._answers.read(1 << 20)):
                    raise RuntimeError("the browser has ended")
                self._rest += data
            text, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def wait_for_text(self, text: str, look: str) -> None:
        """Wait until the page shows a text, which the script ``look`` gives.

        Raises:
            TimeoutError: it does not; with what it shows instead.
        """
        deadline = time.monotonic() + _DEADLINE
        while True:
            shown = self.ask("Runtime.evaluate", expression=look)["result"].get("value", "")
            if text in shown:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the page does not show {text!r}, but: {shown[-2000:]}")
            time.sleep(0.2)


def main() -> int:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        print("this needs chromium", file=sys.stderr)
        return 1
    home = Path(tempfile.mkdtemp(prefix="remsvc-picture-"))
    try:
        (home / "dags").mkdir()
        (home / "dags" / "backup.py").write_text(DAG, encoding="utf-8")
        with SecuredServer(home / "server") as server:
            connection = {"AIRFLOW_CONN_REMSVC_DEFAULT": server.connection}
            with (
                LocalAirflow(home / "airflow", home / "dags", connection) as airflow,
                Chromium(program, home / "chromium") as browser,
            ):
                airflow.wait_for_dag(DAG_ID)
                run = airflow.api.trigger(DAG_ID)
                browser.ask(
                    "Emulation.setDeviceMetricsOverride",
                    width=WIDTH,
                    height=HEIGHT,
                    deviceScaleFactor=1,
                    mobile=False,
                )
                browser.ask("Network.setCookie", name="_token", value=airflow.api.token(), url=airflow.url)
                browser.ask("Page.navigate", url=f"{run.url}/tasks/{TASK_ID}")
                browser.wait_for_text(SEEN, UNFOLD)
                picture = browser.ask("Page.captureScreenshot", format="png")
                PICTURE.write_bytes(base64.b64decode(picture["data"]))
                # A job outlives its server: one whose files are removed would leave a supervisor behind.
                for _ in run.watch(2 * _DEADLINE):
                    pass
    finally:
        end_children()
        shutil.rmtree(home, ignore_errors=True)
    print(f"made {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
