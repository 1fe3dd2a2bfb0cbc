"""The demo's load, which follows from what its machine can do."""

import pytest

from benchmarks.demo import ANSWER_TOKENS, tokens_in


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
