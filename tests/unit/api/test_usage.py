"""What was spent can be asked for: over the admin API, and on the command line."""

import json

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from runtime.cli import usage as usage_cli
from runtime.cli.client import AdminClient
from runtime.cli.main import app
from runtime.errors import CommandError
from tests.unit.api.test_api import post, serving
from tests.unit.direct_keys import memory_keys

ROWS = [{"tenant": "acme", "requests": 2, "hops": 4, "prompt_tokens": 30}]
NOW = 1_764_000_000.0


# Once an answer is there, usage has what it said of itself, by whatever it is asked for.
@pytest.mark.parametrize("stream", [False, True])
async def test_usage_over_the_admin_api(stream):
    async with serving() as (_, client):
        answer = await post(client, stream=stream, max_tokens=7)
        assert answer.status_code == 200, answer.text
        by_chain = (await client.get("/admin/v1/usage", params={"by": "chain"})).json()["usage"]
        told = next(group for group in by_chain if group["chain"] == "agent")
        assert (told["requests"], told["hops"], told["completion_tokens"]) == (1, 2, 7)
        by_step = (await client.get("/admin/v1/usage", params={"by": "step"})).json()["usage"]
        assert {"triage", "answer"} <= {group["step"] for group in by_step}


# A group that there is not is refused with the nearest that there is; so are callers from elsewhere.
async def test_refusals():
    async with serving() as (_, client):
        answer = await client.get("/admin/v1/usage", params={"by": "tenants"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "by")
        assert "did you mean 'tenant'?" in answer.json()["error"]["message"]
    async with serving("10.1.2.3") as (_, client):
        assert (await client.get("/admin/v1/usage")).status_code == 403


# Whose sessions there are is told to operators alone: a tenant's key opens no usage, its own neither.
async def test_sessions_are_told_to_operators():
    keys = memory_keys()
    async with serving(keys=keys, admin_key=SecretStr("admin")) as (_, client):
        path, admin = "/admin/v1/usage?by=session", {"authorization": "Bearer admin"}
        made = (await client.post("/admin/v1/keys", json={"tenant": "acme"}, headers=admin)).json()
        mine = {"authorization": f"Bearer {made['key']}"}
        assert (await client.get(path, headers=mine)).status_code == 403
        assert (await client.get(path, headers=admin)).status_code == 200
    keys.engine.dispose()


# The command prints a table, JSON or CSV, and passes on what it is asked to sum up by.
@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_the_command(monkeypatch, form):
    asked = []

    def answer(_client, by, since):
        asked.append((by, since))
        return ROWS

    monkeypatch.setattr(AdminClient, "usage", answer)
    done = CliRunner().invoke(app, ["usage", "--by", "tenant", "--format", form])
    assert done.exit_code == 0
    assert asked == [("tenant", 0.0)]
    assert "acme" in done.stdout
    if form == "json":
        assert json.loads(done.stdout) == ROWS
    if form == "csv":
        assert done.stdout.splitlines() == ["tenant,requests,hops,prompt_tokens", "acme,2,4,30"]


# What was nobody's, as requests without a key are, has a name in the table, and none for programs.
@pytest.mark.parametrize("nobody", ["", None])
def test_nobody_in_a_table(monkeypatch, nobody):
    rows = [ROWS[0] | {"tenant": nobody}]
    monkeypatch.setattr(AdminClient, "usage", lambda *_: rows)
    printed = {
        form: CliRunner().invoke(app, ["usage", "--format", form]).stdout for form in ("table", "json", "csv")
    }
    assert "(none)" in printed["table"]
    assert json.loads(printed["json"]) == rows
    assert printed["csv"].splitlines()[1] == ",2,4,30"


# --since takes a time ago or a date, in UTC unless it says otherwise; anything else is refused.
def test_since():
    assert usage_cli._moment(None, NOW) == 0.0
    assert usage_cli._moment("24h", NOW) == NOW - 86_400
    assert usage_cli._moment("1970-01-02", NOW) == 86_400.0
    with pytest.raises(CommandError, match="24h"):
        usage_cli._moment("yesterday", NOW)
