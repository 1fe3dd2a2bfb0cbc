"""The command line against whatever answers at its address: one sentence, no traceback, not the key."""

import httpx
import pytest
from typer.testing import CliRunner

from runtime.cli import client as cli_client
from runtime.cli import usage as usage_cli
from runtime.cli.budgets import budget_of
from runtime.cli.client import AdminClient
from runtime.cli.main import app
from runtime.errors import CommandError, InterlockError, Unavailable
from runtime.settings import Settings

HTML = {"content-type": "text/html"}
STRANGERS = [
    httpx.Response(200, text="<html>router\x1b[2J</html>", headers=HTML),
    httpx.Response(200, json={}),
    httpx.Response(200, json=[]),
    httpx.Response(200, content=b"\xff\xfe\x00", headers={"content-type": "application/json"}),
    httpx.Response(200, content=b"[" * 100_000, headers={"content-type": "application/json"}),
    httpx.Response(200, json={"wanted": 7, "releases": {}, "live": "x"}),
    httpx.Response(200, json={"verdict": "fine", "tiers": {}}),
    httpx.Response(302, headers={"location": "http://elsewhere"}),
    httpx.Response(401, text="<html>log in</html>" * 1000, headers=HTML),
    httpx.Response(403, json={"error": "no"}),
    httpx.Response(404, text="not found"),
    httpx.Response(502, text="<html>bad gateway</html>", headers=HTML),
    httpx.Response(200, text="x", headers={"content-encoding": "gzip"}),
]
COMMANDS = [
    ["status"],
    ["status", "--json"],
    ["health"],
    ["releases"],
    ["promote"],
    ["promote", "99999999999999999999"],
    ["rollback"],
    ["abort"],
    ["audit"],
    ["events"],
    ["usage"],
    ["usage", "--forecast"],
    ["keys", "list"],
    ["keys", "create", "--tenant", "a"],
    ["keys", "revoke", "key-x"],
    ["budgets", "list"],
    ["budgets", "set", "--tenant", "a", "--limit", "1"],
    ["budgets", "remove", "1"],
    ["wait", "--timeout", "0"],
]


@pytest.fixture
def answering(monkeypatch):
    """Let a server answer every command in the same way."""

    def answer_with(answer):
        opened = cli_client._client

        def client(address, headers, _):
            return opened(address, headers, httpx.MockTransport(lambda _: answer))

        monkeypatch.setattr(cli_client, "_client", client)

    return answer_with


# Another server on the port is told of in one line with its address, whatever it answers to a command.
@pytest.mark.parametrize("answer", STRANGERS, ids=lambda answer: str(answer.status_code))
def test_something_else_answers(answering, answer):
    answering(answer)
    for command in COMMANDS:
        done = CliRunner().invoke(app, command, env={"INTERLOCK_ADMIN_KEY": "hunter2"})
        assert done.exit_code == 1, (command, done.exception, done.output)
        assert isinstance(done.exception, SystemExit)
        assert done.stderr.startswith("error: ")
        assert "http://127.0.0.1:8000" in done.stderr
        assert done.stderr.count("\n") == 1
        assert len(done.stderr) < 500
        assert "hunter2" not in done.output
        assert "\x1b" not in done.output


# An address that is none is refused by an example of one.
@pytest.mark.parametrize(
    "address",
    ["localhost:8000", "ftp://x", "http://", "http://[", "http://x:99999999", "", "x" * 5000, "http://\x00"],
)
def test_addresses(address):
    with pytest.raises(CommandError, match=r"http://127\.0\.0\.1:8000") as refused:
        AdminClient(Settings(address=address))
    assert len(str(refused.value)) < 300


PROXIES = {"HTTP_PROXY": "http://proxy:1", "HTTPS_PROXY": "http://proxy:1", "ALL_PROXY": "http://proxy:1"}


# The environment's proxies are used for other hosts, never for this one: they would be told the admin key.
@pytest.mark.parametrize(
    ("address", "proxied"),
    [
        ("http://127.0.0.1:8000", False),
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
        ("https://127.0.0.1:8000", False),
        ("http://gateway.example:8000", True),
        ("https://gateway.example", True),
        ("http://inside.example", False),
    ],
)
def test_proxies(monkeypatch, address, proxied):
    for name, value in {**PROXIES, "NO_PROXY": "inside.example"}.items():
        monkeypatch.setenv(name, value)
        monkeypatch.delenv(name.lower(), raising=False)
    http = cli_client._client(address, {}, None)
    pool = http._transport_for_url(httpx.URL(address))._pool
    assert ("Proxy" in type(pool).__name__) == proxied


# A proxy that cannot be used, or certificates that are not there, are named.
@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "nonsense://x"), ("SSL_CERT_FILE", "/nonexistent")]
)
def test_an_environment_that_cannot_be_used(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(CommandError, match="environment"):
        AdminClient(Settings(address="https://gateway.example"))


# Nobody at the address, and an error of ours, stay what they were.
def test_away_and_refused():
    def away(request):
        raise httpx.ConnectError("refused", request=request)

    def refuse(_):
        error = {"message": "not that", "type": "conflict_error", "param": None, "code": "wrong_state"}
        return httpx.Response(409, json={"error": error})

    with pytest.raises(Unavailable, match="is the application deployed"):
        AdminClient(Settings(), transport=httpx.MockTransport(away)).status()
    with pytest.raises(CommandError, match=r"^not that$"):
        AdminClient(Settings(), transport=httpx.MockTransport(refuse)).status()


# A CSV cell that begins as a formula does is text to every spreadsheet.
@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\tx", "plain", "a=b"])
def test_csv_is_no_formula(monkeypatch, name):
    rows = [{"session": name, "tenant": "acme", "hops": -1}]
    monkeypatch.setattr(AdminClient, "usage", lambda *_: rows)
    done = CliRunner().invoke(app, ["usage", "--by", "session", "--format", "csv"])
    cell = usage_cli.csv.reader(done.stdout.splitlines()[1:]).__next__()[0]
    assert (cell == f"'{name}") == (name[0] in "=+-@\t")
    assert cell.endswith(name)
    assert done.stdout.rstrip().endswith(",-1")


# Options are bounded where they come in: refused as such, before anybody is asked.
@pytest.mark.parametrize(
    "command",
    [
        ["wait", "--timeout", "nan"],
        ["wait", "--timeout", "inf"],
        ["promote", "--timeout", "-1"],
        ["audit", "--limit", "0"],
        ["audit", "--limit", "99999999999999999999"],
        ["budgets", "remove", "9" * 5000],
    ],
)
def test_options(command):
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)


# An amount that is no amount is refused in a sentence, however long it is.
@pytest.mark.parametrize("amount", ["9" * 5000, "1." + "1" * 5000, "9" * 200_000 + "G", "1e9", "²"])
def test_amounts(amount):
    with pytest.raises(InterlockError):
        budget_of(amount)
    nobody = ["--address", "http://127.0.0.1:1"]  # a gateway on the usual port would be asked, and answer
    done = CliRunner().invoke(app, ["budgets", "set", "--tenant", "a", "--limit", amount, *nobody])
    assert isinstance(done.exception, SystemExit)
