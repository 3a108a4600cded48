"""Generate ``src/remsvc_proto`` from ``proto/``: ``python scripts/generate_stubs.py``.

The build hook calls :func:`generate` inside its build environment. Run by hand (after a change in
``proto/`` of an editable install) this installs the build requirements into a throw-away
environment first, because they need an older protobuf than the one the project runs on.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Generated code refuses (or warns about) a runtime other than its generator's. What it calls has
# been stable through protobuf 5, 6 and 7, which the test matrix proves, so the guards go.
_PROTOBUF_GUARD = re.compile(r"_runtime_version\.ValidateProtobufRuntimeVersion\(.*?\n\)\n", re.DOTALL)
_PROTOBUF_GUARD_IMPORT = "from google.protobuf import runtime_version as _runtime_version\n"
_GRPC_GUARD = re.compile(r"GRPC_GENERATED_VERSION = .*?\n(?=\n\nclass )", re.DOTALL)
# "import x_pb2 as" and "from a.b import x_pb2 as": modules beside the one that imports them.
_ABSOLUTE_IMPORT = re.compile(r"^(?:from ((?!google)[\w.]+) )?import (\w+_pb2) as ", re.MULTILINE)


def generate(root: Path = ROOT) -> list[Path]:
    """Write the modules of every file in ``proto/`` and return their paths.

    Raises:
        RuntimeError: protoc failed, or its output is not of the known shape.
    """
    import grpc_tools
    from grpc_tools import protoc

    out = root / "src" / "remsvc_proto"
    out.mkdir(parents=True, exist_ok=True)
    sources = sorted((root / "proto").rglob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{root / 'proto'}", f"-I{well_known}"]
    arguments += [f"--python_out={out}", f"--pyi_out={out}"]
    arguments += [f"--grpc_python_out={out}", *map(str, sources)]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc failed on {', '.join(map(str, sources))}")
    written = []
    for source in sources:
        folder = out / source.parent.relative_to(root / "proto")
        messages = folder / f"{source.stem}_pb2.py"
        services = folder / f"{source.stem}_pb2_grpc.py"
        _edit(messages, (_PROTOBUF_GUARD, ""), (re.compile(re.escape(_PROTOBUF_GUARD_IMPORT)), ""))
        _edit(
            services,
            (_GRPC_GUARD, ""),
            (re.compile(r"^import warnings\n", re.MULTILINE), ""),
            (_ABSOLUTE_IMPORT, _relocated),
        )
        written += [messages, messages.with_suffix(".pyi"), services]
    return written


def _relocated(match: re.Match[str]) -> str:
    package = f"remsvc_proto.{match[1]}" if match[1] else "remsvc_proto"
    return f"from {package} import {match[2]} as "


def _edit(path: Path, *edits: tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]) -> None:
    text = path.read_text(encoding="utf-8")
    for pattern, replacement in edits:
        text, count = pattern.subn(replacement, text)
        if count != 1:
            raise RuntimeError(f"{path.name}: expected {pattern.pattern!r} once, found it {count} times")
    path.write_text(text, encoding="utf-8")


def _build_requirements() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r"^requires = \[(.*?)\]", text, re.MULTILINE)
    if match is None:
        raise RuntimeError("pyproject.toml: no [build-system] requires")
    return re.findall(r'"([^"]+)"', match.group(1))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", *_build_requirements()], check=True)
        code = "import generate_stubs; print(*generate_stubs.generate(), sep='\\n')"
        subprocess.run([python, "-c", code], cwd=ROOT / "scripts", check=True)


if __name__ == "__main__":
    main()
