"""The first step: which of the choices a question is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.core.model_set.engines import TransformersEngineSpec
from runtime.serve.hosts.transformers import TransformersEngine


class Router:
    """An encoder with the examples of its choices; the same code as Interlock's engine runs it."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, spec: TransformersEngineSpec, location: str, choices: Mapping[str, Sequence[str]], version: int
    ) -> None:
        self._encoder = TransformersEngine(spec, location)
        self._choices = {name: list(examples) for name, examples in choices.items()}
        self._version = version
        await self._encoder.load()
        await self.choose("I have a question.")  # the vectors of the examples are kept from here on

    async def choose(self, question: str) -> tuple[str, int]:
        """Return the choice, and the version that has chosen."""
        answer = await self._encoder.classify({"input": question, "choices": self._choices})
        return answer.choice, self._version
