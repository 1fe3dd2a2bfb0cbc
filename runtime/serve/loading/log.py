"""How a replica learns from vLLM's processes how far they are: a file that they append lines to.

vLLM starts processes of its own, and on a GPU Ray starts them as actors, whose log goes elsewhere.
Each of them calls ``attach`` as a plugin of vLLM (``pyproject.toml``) and inherits the file's name.
Only lines that ``load_progress`` knows are written, and vLLM's own logging stays as it is configured.
A process on another node, or one without vLLM's plugins, is missing from it, and nothing breaks.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Self

from runtime.core.swap.phase import Stage
from runtime.serve.loading.progress import Fetching, furthest, stage_of
from runtime.settings import hand_load_log_down, load_log

_log = logging.getLogger(__name__)

_VLLM = "vllm"
"""The logger that all of vLLM's propagate to."""


def attach() -> None:
    """Append what this process of vLLM logs about coming up to the replica's file, if there is one."""
    path, logger = load_log(), logging.getLogger(_VLLM)
    if path is not None and not any(isinstance(handler, _Appending) for handler in logger.handlers):
        logger.addHandler(_Appending(path))


class _Appending(logging.Handler):
    """Appends the first line of each message that shows a stage, while the file's folder is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or leave vLLM's log for good if the replica does not read it any more."""
        line = record.getMessage().partition("\n")[0]
        if stage_of(line) is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            logging.getLogger(_VLLM).removeHandler(self)
            _log.debug("nobody reads %s any more: %s", self._path, error)


class LoadLog:
    """The replica's end. Use as ``with LoadLog(...) as log``, around what starts vLLM's processes."""

    def __init__(self, fetching: Fetching) -> None:
        self._fetching = fetching
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="interlock-load-"))
        except OSError as error:
            _log.warning("how this engine comes up will not be shown: %s", error)
        else:
            hand_load_log_down(self._folder / "log")
        return self

    def __exit__(self, *exc: object) -> None:
        hand_load_log_down(None)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def stage(self) -> Stage:
        """Return how far vLLM's processes are."""
        return furthest(self._lines(), self._fetching)

    def _lines(self) -> list[str]:
        if self._folder is None:
            return []
        try:
            return (self._folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            _log.debug("vLLM has logged nothing yet, or has come up: %s", error)
            return []
