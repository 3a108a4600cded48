"""Write ``constraints.txt`` again: the newest version of everything development needs.

One file serves every supported Python and platform. It holds no address of a registry.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = "# The versions that `make install` uses. Written by `make constraints`.\n"


def main() -> None:
    constraints = ROOT / "constraints.txt"
    options = ["--universal", "--python-version=3.10", "--extra=dev", "--extra=bench", "--upgrade", "--quiet"]
    plain = ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    compiled = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", *options, *plain, "pyproject.toml"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    if "://" in compiled:
        raise SystemExit("the compiled constraints hold an address; nothing was written")
    constraints.write_text(HEADER + compiled, encoding="utf-8")


if __name__ == "__main__":
    main()
