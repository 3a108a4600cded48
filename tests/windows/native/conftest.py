"""Nothing here can even be imported elsewhere than on Windows."""

from __future__ import annotations

import sys

collect_ignore_glob = [] if sys.platform == "win32" else ["test_*.py"]
