"""The one way from the event loop to a call that blocks.

Nothing here limits a wait: each call of a repository has a limit of its own (``store.sql.patience``). A
caller that is cancelled leaves at once; its call goes on in the thread to its end, and its result is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import TypeVar, TypeVarTuple

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")


async def in_thread(
    thread: Executor | None, call: Callable[[*_Arguments], _Result], *arguments: *_Arguments
) -> _Result:
    """Return what ``call`` returns, made in ``thread``; None stands for one of the event loop's own.

    Raises what ``call`` raises.
    """
    within_context = partial(copy_context().run, call, *arguments)  # log lines are still the request's
    return await asyncio.get_running_loop().run_in_executor(thread, within_context)
