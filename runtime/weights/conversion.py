"""Converting a fetched GGUF file, in a process of its own.

A process of its own because transformers and torch bring a gigabyte, progress bars of their own and
settings that are read from the environment at import.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

from runtime.errors import ModelFetchError
from runtime.weights import gguf_to_safetensors
from runtime.weights.child_process import run_child
from runtime.weights.progress import ReportProgress

_QUIET_AND_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


class Convert(Protocol):
    """Turns a GGUF file into a folder of safetensors; replaced in tests, which need no torch."""

    def __call__(self, gguf: Path, folder: Path, progress: ReportProgress) -> None:
        """Write the converted model to ``folder``, which does not exist yet."""
        ...


def convert_with_transformers(gguf: Path, folder: Path, progress: ReportProgress) -> None:
    """Convert ``gguf`` with this environment's transformers; no network is touched.

    Raises:
        ModelFetchError: the conversion failed; with its own last words.

    """
    # By path and with -P: the child finds the program wherever Interlock lies, and no module of ours
    # can shadow one of theirs.
    command = [sys.executable, "-P", gguf_to_safetensors.__file__, str(gguf), str(folder)]
    log = gguf.parent.parent / "conversion.log"
    ended = run_child(
        command,
        log,
        _QUIET_AND_OFFLINE,
        lambda: progress.step(f"converting {gguf.name} to safetensors", 0, None),
    )
    if ended.status != 0:
        raise ModelFetchError(
            f"{gguf.name} could not be converted to safetensors (exit status {ended.status}):\n"
            f"{ended.last_words()}\n"
            "it needs about 1 GB of memory and: pip install 'transformers>=5' torch gguf accelerate"
        )
