"""vLLM's own metrics, through the manager, from a real engine."""

import math
import time
from pathlib import Path

from tests.prometheus import problems_of, total_of
from tests.promql import Scrapes, queries_of

DASHBOARD = Path(__file__).resolve().parents[2] / "serve_configs" / "grafana" / "interlock.json"
TOKENS = 20


def generated(text):
    return total_of(text, "vllm:generation_tokens_total")


# vLLM counts what the gateway counts, `/metrics` is well formed with all that vLLM has to say, and each of
# the dashboard's queries on it shows something.
def test_vllm_tells_through_the_manager(support):
    first, begun = support.http.get("/metrics").text, time.monotonic()
    for _ in range(3):
        answer = support.chat(max_tokens=TOKENS, ignore_eos=True)
        assert answer.is_success, answer.text
    end = time.monotonic() + 10
    while generated(last := support.http.get("/metrics").text) < generated(first) + 3 * TOKENS:
        assert time.monotonic() < end, "vLLM does not count"
        time.sleep(0.2)
    assert generated(last) == generated(first) + 3 * TOKENS
    live = {"purpose": "live", "step": "answer"}
    counted = [total_of(text, "interlock_completion_tokens_total", **live) for text in (first, last)]
    assert counted[1] - counted[0] == 3 * TOKENS
    assert problems_of(last) == []
    shown = Scrapes(first, last, time.monotonic() - begun)
    for panel, query in queries_of(DASHBOARD):
        if "vllm:" in query:
            values = shown.show(query).values()
            assert any(not math.isnan(value) for value in values), (panel, query)
