"""A kind of step that only tests know: it generates two drafts at once, and comes to both of them."""

from typing import ClassVar

from runtime.core.declaration.spec import Spec
from runtime.core.requests.sampling import UNASKED_CAP
from runtime.core.walk.call import Call, Operation, Text
from runtime.core.walk.chain import Chain
from runtime.core.walk.steps.generate import Generate


class Both(Spec):
    """Generate two drafts, beside each other."""

    engine: str

    name: ClassVar = "both"
    runs_on: ClassVar = frozenset({"fake"})
    can_answer: ClassVar = False
    gives: ClassVar = frozenset({"text"})
    prompt: ClassVar = None
    sampling: ClassVar = {}
    examples: ClassVar = ()
    outcomes: ClassVar = ()

    def calls(self, asked):
        body = {"messages": list(asked.messages), UNASKED_CAP: asked.max_tokens}
        return [
            Call(f"{asked.step}.{branch}", asked.step, self.engine, Operation.GENERATE, body)
            for branch in ("plain", "careful")
        ]

    def take(self, results):
        return Text(" / ".join(result.text for result in results.values()))

    def example(self, text=""):
        return Text(text)


class BothStep(Spec):
    """A step of this kind."""

    id: str = "drafts"
    both: Both = Both(engine="writer")
    generate: Generate | None = None

    @property
    def kind(self):
        return self.both


def with_both(chain: Chain) -> Chain:
    """The chain with two drafts in place of its first step; its answer reads them."""
    answer = chain.steps[-1]
    prompt = answer.generate.model_copy(update={"prompt": "{{ steps.drafts.text }}"})
    steps = (BothStep(), answer.model_copy(update={"generate": prompt}))
    return chain.model_copy(update={"steps": steps})
