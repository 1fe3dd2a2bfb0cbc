"""The demo's load, which follows from what its machine can do."""

import pytest

from benchmarks.demo import ANSWER_TOKENS, tokens_in
from benchmarks.parts.open_loop import Record
from benchmarks.parts.report import Moments, _ttft


def answer(tokens, milliseconds):
    route = {"completion_tokens": 0, "duration_ms": 20.0}
    return {"interlock": {"hops": [route, {"completion_tokens": tokens, "duration_ms": milliseconds}]}}


# Answers are as long as takes the machine so many seconds, within bounds.
@pytest.mark.parametrize(
    ("tokens", "milliseconds", "expected"),
    [(50, 2500.0, 60), (50, 250.0, ANSWER_TOKENS[1]), (50, 50_000.0, ANSWER_TOKENS[0])],
)
def test_answers_fit_the_machine(tokens, milliseconds, expected):
    assert tokens_in(3.0, answer(tokens, milliseconds)) == expected


# What was sent before the load was steady met an idle machine, and is compared with nothing.
def test_only_steady_load_is_before():
    sent = [
        Record(stream=True, sent=at, first=at + ttft) for at, ttft in ((1.0, 9.0), (11.0, 0.2), (21.0, 9.0))
    ]
    found = _ttft(sent, Moments(steady=10.0, deployed=20.0, cutover=30.0), new=2)
    assert found["before"] == {"p50": 200.0, "p99": 200.0}
