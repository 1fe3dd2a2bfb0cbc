"""What a request may spend, what it has under way, and what it has spent: never more than it holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from runtime.core.budgets.budget import COUNTABLE, Amount, choices_of, completion_cap
from runtime.core.metering.cost import FREE, worst_cost
from runtime.core.metering.hop import HopEnded
from runtime.core.swap.routes import RoutedRelease
from runtime.core.walk.call import Call, Operation, made_up
from runtime.core.walk.walk import Walk
from runtime.errors import InvalidRequest
from runtime.walking.deadline import Deadline
from runtime.walking.reservations import Reservations


class Spending:
    """One request's. ``count`` asks a call's engine how many tokens its prompt has."""

    def __init__(
        self,
        hold: Reservations,
        release: RoutedRelease,
        deadline: Deadline,
        count: Callable[[Call], Awaitable[int]],
    ) -> None:
        self.hold = hold
        self._release = release
        self._deadline = deadline
        self._count = count
        self._spent = Amount()
        self._lost = Amount()
        """The worst case of attempts whose replica is lost: if only the way to it was, they go on."""
        self._under_way: dict[str, Amount] = {}
        """The worst case of each call that has not ended, and of those that begin the walk."""

    async def begin(self, walk: Walk) -> None:
        """Reserve the worst case of all calls of ``walk``, a rehearsal. Nothing has been spent before.

        Raises:
            RateLimited, QuotaExhausted: it does not fit.
            InvalidRequest: an engine would refuse what the client sent.
            EngineUnavailable: an engine does not answer how long a prompt is.
            StoreUnavailable: the caps cannot be asked for.

        """
        await self.hold.find_caps()
        await self.hold.begin(await self._worst_case(walk) if self.hold.counts_tokens else Amount())

    async def _worst_case(self, walk: Walk) -> Amount:
        """Return what all calls may read and generate: later prompts may hold earlier answers.

        A prompt of made-up answers may be refused where the right one is not; it is known before its call.
        """
        worst, answered, first = Amount(), 0, True
        while calls := walk.ready():
            generated = 0
            for call in calls:
                try:
                    prompt, completion = await self._tokens(call)
                except InvalidRequest:
                    if first:
                        raise
                    return worst
                longest = max(prompt, min(prompt + answered, self._context(call)))
                most = self._amount(call, longest, completion)
                if first:
                    self._under_way[call.id] = most
                worst, generated = worst.plus(most), generated + completion
                walk.record(call, made_up(call))
            answered, first = answered + generated, False
        return worst

    async def cover(self, call: Call) -> None:
        """Have what has been spent, what is under way and ``call`` reserved. Raises as ``begin`` does.

        What was reserved for a later call before was an estimate of its prompt.
        """
        if self.hold.counts_tokens and call.id not in self._under_way:
            self._under_way[call.id] = await self._worst_of(call)
            await self._cover(call)

    async def cover_again(self, call: Call) -> None:
        """Have a second attempt reserved, too: if only the way to the first is lost, that one goes on."""
        if self.hold.counts_tokens:
            worst = self._under_way[call.id] = await self._worst_of(call)
            self._lost = self._lost.plus(worst)
            await self._cover(call)
            self.hold.leave()

    async def _cover(self, call: Call) -> None:
        wanted = self._spent.plus(self._lost)
        for worst in self._under_way.values():
            wanted = wanted.plus(worst)
        with self._deadline.within(call.step) as limit, limit:
            await self.hold.cover(wanted)

    def hop_ended(self, ended: HopEnded) -> None:
        """Replace a hop's worst case by what it has spent."""
        if self.hold.counts_tokens:
            self._under_way.pop(ended.call, None)
            self._spent = self._spent.plus(Amount(ended.record.usage.total, ended.row.cost))

    async def _worst_of(self, call: Call) -> Amount:
        return self._amount(call, *await self._tokens(call))

    async def _tokens(self, call: Call) -> tuple[int, int]:
        """Return how many tokens a call will read, and how many it may generate."""
        prompt = await self._count(call)
        if call.operation is Operation.CLASSIFY:
            return prompt, 0
        room = max(0, self._context(call) - prompt)
        return prompt, min(completion_cap(call.body), room * choices_of(call.body))

    def _context(self, call: Call) -> int:
        return self._release.contexts.get(call.engine, COUNTABLE)

    def _amount(self, call: Call, prompt: int, completion: int) -> Amount:
        price = self._release.prices.get(call.engine, FREE)
        return Amount(prompt + completion, worst_cost(price, prompt, completion))
