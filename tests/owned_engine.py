"""An engine behind Serve's handle as its owner sees it: contracts of engines ask an owner's calls, too."""

from runtime.serve.hosts.replica import HandleEngine


class OwnedEngine(HandleEngine):
    """One replica's engine, which Serve has loaded and unloads."""

    async def load(self):
        pass

    async def warm(self, operation, body):
        return await self._ask("warm", operation, body)

    async def sleep(self):
        await self._ask("sleep")

    async def wake(self):
        await self._ask("wake")

    async def idle(self):
        return await self._ask("idle")

    async def metered(self):
        return await self._ask("metered")

    async def ended(self, after, age, limit):
        return await self._ask("ended", after, age, limit)

    async def metrics(self):
        return await self._ask("metrics")

    async def unload(self):
        pass
