"""The cells of `test_ci_agents` and `test_container`: where Python and gotunnel are bound to in them."""

from __future__ import annotations

import sys

PYTHON = f"/mnt/python/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
PROGRAM = f"""#!{PYTHON}
import sys
sys.path[:0] = ["/mnt/source", "/mnt/site"]
from gotunnel.cli.main import entry
sys.exit(entry())
"""
