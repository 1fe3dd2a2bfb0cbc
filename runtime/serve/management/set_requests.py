"""Model sets requested by ``user_config``: read in the background, one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from runtime.clock import Clock
from runtime.core.model_set.digest import Content, change_digest
from runtime.core.model_set.drain_time import check_deadlines
from runtime.core.swap import events as ev
from runtime.errors import ModelSetError
from runtime.sets.reader import read_content
from runtime.settings import Settings

_log = logging.getLogger(__name__)

_KEYS = {"model_set", "change"}


class ModelSetRequests:
    """Reads the requested model sets; ``post`` gets the event that each request leads to."""

    def __init__(self, settings: Settings, clock: Clock, post: Callable[[ev.Event], None]) -> None:
        self._settings = settings
        self._clock = clock
        self._post = post
        self._reading: set[asyncio.Task[None]] = set()
        self._in_turn = asyncio.Lock()

    def submit(self, user_config: Mapping[str, Any]) -> None:
        """Queue a request and return at once."""
        task = asyncio.create_task(self._process(dict(user_config)))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _process(self, user_config: dict[str, Any]) -> None:
        # In their order: a set that takes minutes to hash must not overtake a later one.
        async with self._in_turn:
            self._post(await self._event_of(user_config))

    async def _event_of(self, user_config: dict[str, Any]) -> ev.Wanted | ev.Refused:
        change = change_digest(user_config)
        try:
            return await asyncio.to_thread(self._read, user_config, change)
        except ModelSetError as error:
            return self._refused(change, error.source, str(error))
        except Exception as error:  # noqa: BLE001 - no request may vanish: the error becomes its reason
            _log.exception("the wanted model set could not be read")
            return self._refused(change, "user_config", f"{type(error).__name__}: {error}")

    def _refused(self, change: str, source: str, reason: str) -> ev.Refused:
        return ev.Refused(at=self._clock.wall(), change=change, source=source, reason=reason)

    def _read(self, user_config: dict[str, Any], change: str) -> ev.Wanted:
        unknown = sorted(set(user_config) - _KEYS)
        if unknown or "model_set" not in user_config:
            key = unknown[0] if unknown else "model_set"
            reason = "unknown key; valid here: model_set, change" if unknown else "is missing"
            raise ModelSetError("user_config of SwapManager", key, reason)
        source, content = self.content(user_config["model_set"])
        return ev.Wanted(at=self._clock.wall(), change=change, source=source, content=content)

    def content(self, wanted: str | Mapping[str, Any]) -> tuple[str, Content]:
        """Return the source's name and the content of a model set that this installation can serve."""
        source, content = read_content(wanted, self._settings.root, self._settings.models_dir)
        check_deadlines(content.model_set, source, self._settings.drain_timeout_s)
        return source, content
