"""Reading a Serve config file, as far as the command line needs it."""

from __future__ import annotations

from pathlib import Path

import yaml

from runtime.core.digest import change_digest
from runtime.errors import CommandError

_DEPLOYMENT = "SwapManager"


def change_of(config: Path) -> str:
    """Return the digest of the change that ``config`` asks for, as the status shows it in ``wanted``.

    Raises:
        CommandError: not readable, or no deployment SwapManager with a user_config in it.

    """
    try:
        document = yaml.safe_load(config.read_text(encoding="utf-8"))
        for application in document["applications"]:
            for deployment in application.get("deployments", ()):
                if deployment["name"] == _DEPLOYMENT and deployment.get("user_config"):
                    return change_digest(deployment["user_config"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(f"{config} is not a Serve config: {type(error).__name__}: {error}") from error
    raise CommandError(f"{config} has no user_config for {_DEPLOYMENT}")
