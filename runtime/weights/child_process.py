"""A child process that is watched while it runs and never outlives the call that started it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.settings import child_environment

_WATCH_S = 0.2
_TAIL_LINES = 5


@dataclass(frozen=True)
class Exit:
    """How a child ended: its exit status (negative: the signal that ended it) and all it wrote."""

    status: int
    output: str

    def last_words(self) -> str:
        """Return the last lines it wrote, which in Python programs hold the error."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return "\n".join(lines[-_TAIL_LINES:]) or "(it wrote nothing)"


def run_child(
    command: Sequence[str], log: Path, variables: Mapping[str, str], watch: Callable[[], None]
) -> Exit:
    """Run ``command`` to its end, calling ``watch`` five times a second.

    Its output goes to the file ``log``; ``variables`` are added to the environment. Whatever ends the
    call early, Ctrl-C or an error in ``watch``, ends the child too.

    Raises:
        OSError: the command could not be started.

    """
    environment = child_environment(variables)
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - callers run our own interpreter with fixed arguments
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        ) as child,
    ):
        try:
            _watch_to_the_end(child, watch)
        finally:
            child.kill()  # does nothing to a child that has ended
            child.wait()  # so that it writes nothing more where the caller now cleans up
    return Exit(status=child.returncode, output=log.read_text(encoding="utf-8", errors="replace"))


def _watch_to_the_end(child: subprocess.Popen[bytes], watch: Callable[[], None]) -> None:
    while child.poll() is None:
        watch()
        with suppress(subprocess.TimeoutExpired):
            child.wait(_WATCH_S)
