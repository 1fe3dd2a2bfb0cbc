"""The manager's end of its links to gateways: each call is answered, and none waits for another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from runtime.channel.fault import Fault
from runtime.channel.server import Answer
from runtime.channel.wire import UNREADABLE, CallFrame, ReplyFrame, Sender
from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.series import MetricsSnapshot
from runtime.core.swap.commands import Command
from runtime.core.swap.routes import GatewayReport, RoutingTable, TableStamp
from runtime.core.views.changes import ChangeBatch
from runtime.core.views.forms import Status
from runtime.errors import InterlockError
from runtime.serve.management.calls import METHODS, encode, error_reply_of


class Answering(Protocol):
    """What the manager does for gateways. Interlock's errors that it raises are raised there, too."""

    async def next_table(self, report: GatewayReport) -> RoutingTable: ...  # noqa: D102 - see traffic.manager_port
    async def report(self, report: GatewayReport) -> TableStamp: ...  # noqa: D102
    async def activity(self, counts: GatewayActivity) -> None: ...  # noqa: D102
    async def leave(self, gateway: str) -> None: ...  # noqa: D102
    async def count(self, snapshot: MetricsSnapshot) -> None: ...  # noqa: D102
    async def metrics(self, snapshot: MetricsSnapshot) -> bytes: ...  # noqa: D102
    async def status(self) -> Status: ...  # noqa: D102
    async def health(self) -> dict[str, Any]: ...  # noqa: D102
    async def command(self, command: Command) -> Status: ...  # noqa: D102
    async def plan(self, wanted: str | Mapping[str, Any]) -> dict[str, Any]: ...  # noqa: D102
    async def changes(self, after: int | None) -> ChangeBatch: ...  # noqa: D102
    async def audit(self, limit: int) -> list[dict[str, Any]]: ...  # noqa: D102


def answering(manager: Answering) -> Answer:
    """Return what answers gateways' calls with what ``manager`` does."""

    async def answer(call: CallFrame, sender: Sender) -> None:
        method = METHODS.get(call.method)
        if method is None:
            unknown = Fault("EngineUnavailable", f"the manager has no call {call.method!r}")
            sender.send(ReplyFrame(call.number, fault=unknown, ended=True))
            return
        try:
            arguments = [method.decode_argument(argument) for argument in call.args]
        except (*UNREADABLE, TypeError, ValueError) as error:
            message = f"the argument of {call.method} is not of its type: {error}"
            sender.send(ReplyFrame(call.number, fault=Fault("EngineUnavailable", message), ended=True))
            return
        try:
            value = [True, encode(await getattr(manager, call.method)(*arguments))]
        except InterlockError as error:
            value = [False, encode(error_reply_of(error))]
        sender.send(ReplyFrame(call.number, value=value, ended=True))

    return answer
