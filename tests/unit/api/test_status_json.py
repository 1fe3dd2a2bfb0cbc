"""The JSON of the status and of the releases, to the letter: clients read it by its names."""

import asyncio
import json
from pathlib import Path

import pytest

from runtime.core.swap import events as ev
from runtime.testing.model_sets import content_of
from tests.unit.api.test_api import post, serving
from tests.unit.world import document

PINNED = Path(__file__).parent / "pinned"
SHARES = {"triage": "1ms", "answer": "1s"}


def set_of(version, load):
    declared = document(version, writer={"load": load}, rollback_window="1h")
    declared["chains"]["agent"]["latency_budget"] = SHARES
    return content_of(declared)


# The status and the releases have the members that they had, in their order, with their values.
@pytest.mark.parametrize("path", ["status", "releases", "releases/2"])
async def test_what_is_told(path):
    async with serving() as (world, client):
        await post(client)
        second = set_of(2, "100ms")
        world.want(second)
        await world.until_live(second)
        await post(client)
        await asyncio.sleep(2)  # by then the gateway has reported what it came to
        world.controller.post(ev.Refused(at=0.0, change="bad", source="bad.yaml", reason="unknown key\nx: 1"))
        await world.until(lambda state: 3 in state.releases)
        world.want(set_of(4, "1h"), source="four.yaml")
        await world.until(lambda state: 4 in state.releases and state.progress)
        told = (await client.get(f"/admin/v1/{path}")).json()
    for gateway in told.get("gateways", ()):
        gateway["tasks"] = 16  # how many the process has is no part of the form
    pinned = PINNED / f"{path.replace('/', '_')}.json"
    assert json.dumps(told, indent=1) + "\n" == pinned.read_text()


# The schema of the API has every member that the status tells of a release, an engine and a gateway.
async def test_schema_tells_of_every_member():
    async with serving() as (_, client):
        told = (await client.get("/admin/v1/status")).json()
        parts = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert set(told) <= set(parts["Status"]["properties"])
    for name, entries in (
        ("ReleaseEntry", told["releases"]),
        ("EngineEntry", told["engines"]),
        ("GatewayEntry", told["gateways"]),
    ):
        assert {member for entry in entries for member in entry} == set(parts[name]["properties"])
