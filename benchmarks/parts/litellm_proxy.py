"""LiteLLM's proxy, in an environment of its own: its pins must not decide over the project's."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import platformdirs
from filelock import FileLock

from runtime.errors import CommandError

VERSION = "1.106.12"
_DONE = "installed"
_INSTALL_S = 900.0


def command() -> Path:
    """Return LiteLLM's command. Raises CommandError if it has not been installed."""
    if not (_folder() / _DONE).exists():
        raise CommandError(f"litellm {VERSION} is not installed in {_folder()}")
    return _folder() / "bin" / "litellm"


def install() -> None:
    """Make the environment, in the user's cache folder, unless it is there; it takes a minute.

    Raises CommandError, with what pip says, if it cannot be installed.
    """
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / _DONE).exists():
            venv.create(folder, with_pip=True, clear=True)
            _pip(folder, f"litellm[proxy]=={VERSION}")
            (folder / _DONE).touch()


def _folder() -> Path:
    return platformdirs.user_cache_path("interlock") / "peers" / f"litellm-{VERSION}"


def _pip(folder: Path, package: str) -> None:
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", package]
    try:
        made = subprocess.run(pip, capture_output=True, text=True, check=False, timeout=_INSTALL_S)  # noqa: S603 - our own arguments
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{package} was not installed within {_INSTALL_S:g} s") from error
    if made.returncode:
        raise CommandError(
            f"{package} cannot be installed for Python {sys.version.split()[0]}:\n{made.stderr[-1000:]}"
        )


def config(model: str, url: str) -> dict[str, object]:
    """Return the configuration of a proxy in front of an OpenAI-compatible server."""
    upstream = {"model": f"hosted_vllm/{model}", "api_base": f"{url}/v1", "api_key": "none"}
    return {"model_list": [{"model_name": model, "litellm_params": upstream}]}
