"""Build hook: generate the stubs from ``proto/`` before a wheel or an editable install is made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        sys.path.insert(0, str(root / "scripts"))
        from generate_stubs import generate

        # The stubs are ignored by git, and hatchling leaves out what git ignores.
        build_data["artifacts"] += [f"/{path.relative_to(root).as_posix()}" for path in generate(root)]
