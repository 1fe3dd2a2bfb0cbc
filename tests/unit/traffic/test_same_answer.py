"""A budget changes no answer: what is right for a tenant without one is right for a tenant with one."""

import contextlib
import re

import pytest

from runtime.core.budgets.budget import Cap, Per, Unit, Window
from runtime.testing.model_sets import content_of
from tests.request_shapes import SHAPES
from tests.unit.api.test_api import serving
from tests.unit.direct_keys import memory_keys
from tests.unit.world import document

FREE, CAPPED = "free", "capped"


@contextlib.asynccontextmanager
async def two_tenants(declared=None, budget=10**6):
    """A client, and the headers of a tenant without a budget and of one with."""
    keys = memory_keys()
    async with serving(live=False, keys=keys) as (world, client):
        wanted = content_of(declared or document(1, writer={"load": "10ms", "tokens": 6}))
        world.want(wanted)
        await world.until_live(wanted)
        headers = {}
        for tenant in (FREE, CAPPED):
            made = (await client.post("/admin/v1/keys", json={"tenant": tenant})).json()
            headers[tenant] = {"authorization": f"Bearer {made['key']}", "x-request-id": "r"}
        world.budgets.set(Cap(0, CAPPED, "", Per.TENANT, Unit.TOKENS, Window.TOTAL, budget))
        yield world, client, headers
        assert world.leases() == 0
    keys.engine.dispose()


async def answers(client, headers, **members):
    """The status and the bytes of both tenants' answers, less their times."""
    told = {}
    for tenant, sent in headers.items():
        body = {"model": "agent"} | members
        answer = await client.post("/v1/chat/completions", json=body, headers=sent)
        said = re.sub(r'("(\w+_ms|created)":|dur=)[0-9.]+', r"\1", answer.text)
        told[tenant] = answer.status_code, re.sub(r'"server_timing":"[^"]*"', "", said)
    return told


# Every valid shape is answered, and byte for byte alike.
async def test_valid_shapes_are_answered_alike():
    async with two_tenants() as (_, client, headers):
        told = {name: await answers(client, headers, **members) for name, members in SHAPES.items()}
    assert {name: each[FREE] for name, each in told.items() if each[FREE][0] != 200} == {}
    assert {name: each for name, each in told.items() if each[FREE] != each[CAPPED]} == {}


def later_prompt(prompt):
    """A set whose answering step's prompt computes on what an earlier step has said."""
    declared = document(1, writer={"load": "10ms", "tokens": 6, "context_length": 200})
    draft = {"id": "draft", "generate": {"engine": "writer", "sampling": {"max_tokens": 4}}}
    declared["chains"]["agent"]["steps"].insert(1, draft)
    declared["chains"]["agent"]["steps"][2]["generate"]["prompt"] = prompt
    return declared


ASKED = [{"role": "user", "content": "my bill"}]


# A prompt that computes on an earlier answer, which is not there when the worst case is reserved, fails none.
@pytest.mark.parametrize(
    "prompt",
    [
        "Improve: {{ steps.draft.text.split()[0] }}",
        "{{ steps.draft.text | length // (steps.draft.text | length) }}",
        "{{ steps.triage.scores.a }} {{ steps.draft.text[3:][0] }}",
    ],
)
async def test_a_prompt_that_computes(prompt):
    async with two_tenants(later_prompt(prompt)) as (_, client, headers):
        told = await answers(client, headers, messages=ASKED)
        assert told[FREE][0] == 200
        assert told[FREE] == told[CAPPED]


# A prompt that is too long only as it is written, or for a choice that is not made, fails nobody either.
@pytest.mark.parametrize(
    "prompt",
    [
        "{{ steps.draft.text.split()[0] }}{#" + " word" * 300 + " #}",
        "{% if steps.triage.choice == 'by_far_the_longest' %}" + "word " * 120 + "{% endif %}",
    ],
)
async def test_a_prompt_that_is_guessed_too_long(prompt):
    declared = later_prompt(prompt)
    declared["chains"]["agent"]["steps"][0]["route"]["choices"]["by_far_the_longest"] = ["never"]
    async with two_tenants(declared) as (_, client, headers):
        told = await answers(client, headers, messages=[{"role": "user", "content": "word " * 100}])
        assert told[FREE][0] == 200
        assert told[FREE] == told[CAPPED]


# A prompt that is too long for its model is refused for both in the same words.
async def test_a_prompt_that_is_too_long():
    async with two_tenants(later_prompt("word " * 60)) as (_, client, headers):
        told = await answers(client, headers, messages=[{"role": "user", "content": "word " * 150}])
        assert told[FREE][0] == 400
        assert told[FREE] == told[CAPPED]


# A prompt that no answer makes right is refused for both in the same words.
async def test_a_prompt_that_never_works():
    declared = later_prompt("{{ messages[1].content }}")
    declared["chains"]["agent"]["samples"] = [{"messages": ASKED * 2}]
    async with two_tenants(declared) as (_, client, headers):
        told = await answers(client, headers, messages=ASKED)
        assert told[FREE][0] == 400
        assert told[FREE] == told[CAPPED]


# A prompt that fits is answered as far as the context goes, if nobody has asked for more; else it is refused.
@pytest.mark.parametrize(
    ("words", "asked", "status"),
    [(80, {}, 200), (98, {}, 200), (120, {}, 400), (80, {"max_tokens": 40}, 400)],
)
async def test_the_room_left(words, asked, status):
    declared = document(1, writer={"load": "10ms", "tokens": 50, "context_length": 102})
    async with two_tenants(declared) as (_, client, headers):
        messages = [{"role": "user", "content": "word " * words}]
        told = await answers(client, headers, messages=messages, **asked)
        assert told[FREE][0] == status
        assert told[FREE] == told[CAPPED]


# What is reserved for a cap that nobody asked for is no more than the context has room for.
async def test_the_room_left_is_what_is_reserved():
    declared = document(1, writer={"load": "10ms", "tokens": 50, "context_length": 102})
    async with two_tenants(declared, budget=80 + 102) as (_, client, headers):
        messages = [{"role": "user", "content": "word " * 80}]
        assert (await answers(client, headers, messages=messages))[CAPPED][0] == 200


# What is refused is refused in the same words.
@pytest.mark.parametrize(
    "members",
    [
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": ASKED, "truncate_prompt_tokens": 5},
        {"messages": ASKED, "choices": 0},
        {"messages": ASKED, "structured_outputs": {"choice": ["a"]}},
        {"messages": ASKED, "tools": []},
        {"messages": ASKED, "tool_choice": "auto"},
        {"messages": ASKED, "model": "nobody"},
    ],
)
async def test_refused_alike(members):
    async with two_tenants() as (_, client, headers):
        told = await answers(client, headers, **members)
        assert told[FREE][0] in {400, 404}
        assert told[FREE] == told[CAPPED]
