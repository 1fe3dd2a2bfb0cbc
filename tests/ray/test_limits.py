"""What OpenAI's own client does when a limit or a budget is reached."""

import time

import openai
import pytest

from runtime.api.auth import KEPT_S
from runtime.store.spending.known_caps import FRESH_SECONDS
from tests.ray.conftest import scripted

ASK = [{"role": "user", "content": "my bill"}]


@pytest.fixture
def acme(interlock, write_set):
    """A key of tenant acme; while there is one, the cluster asks everybody for a key."""
    interlock.swap_to(write_set("limits", scripted(50)))
    made = interlock.http.post("/admin/v1/keys", json={"tenant": "acme"}).json()
    time.sleep(KEPT_S)  # gateways use what they know for so long
    yield made["key"]
    interlock.http.delete(f"/admin/v1/keys/{made['id']}")
    time.sleep(KEPT_S)


@pytest.fixture
def client(interlock, acme):
    """OpenAI's client, and the requests that it sent."""
    sent = []
    http = openai.DefaultHttpxClient(trust_env=False, event_hooks={"request": [sent.append]})
    with openai.OpenAI(
        base_url=f"{interlock.url}/v1", api_key=acme, max_retries=3, http_client=http
    ) as opened:
        yield opened, sent


@pytest.fixture
def put(interlock):
    """Set a budget or limit of acme; it is gone after the test."""

    def put(**cap):
        told = interlock.http.put("/admin/v1/budgets", json={"tenant": "acme", **cap})
        assert told.status_code == 200, told.text
        time.sleep(FRESH_SECONDS)

    yield put
    for cap in interlock.http.get("/admin/v1/budgets").json()["budgets"]:
        interlock.http.delete(f"/admin/v1/budgets/{cap['id']}")


# Against a spent budget it makes exactly one request.
def test_a_spent_budget_is_asked_once(client, put):
    opened, sent = client
    put(limit=3)
    with pytest.raises(openai.RateLimitError) as refused:
        opened.chat.completions.create(model="support-agent", messages=ASK, max_tokens=5)
    assert refused.value.code == "insufficient_quota"
    assert len(sent) == 1


# Against a limit per minute it waits as it is told, and succeeds.
@pytest.mark.timeout(150)
def test_a_limit_is_waited_for(client, put):
    opened, sent = client
    put(limit=1, unit="requests", window="minute", kind="limit")
    time.sleep(max(0.0, 40 - time.time() % 60))  # late in a minute, so that the next one is soon
    answers = [
        opened.chat.completions.with_raw_response.create(model="support-agent", messages=ASK, max_tokens=5)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "1"
    assert len(sent) in (2, 3)
