"""The models that the demo and the benchmarks serve, fetched before they are needed."""

from __future__ import annotations

import subprocess
import sys

from runtime.errors import CommandError


def fetch_models() -> None:
    """Run ``interlock models fetch``, which shows its progress. Raises CommandError if it fails."""
    done = subprocess.run([sys.executable, "-m", "runtime.cli.main", "models", "fetch"], check=False)
    if done.returncode:
        raise CommandError("the models could not be fetched; see above")
