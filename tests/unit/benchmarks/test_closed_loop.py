"""The closed-loop load generator and what is made of its samples."""

import asyncio

import pytest

from benchmarks.overhead import Config
from benchmarks.parts.closed_loop import Answer, ClosedLoop, ClosedPlan, Window, take_events
from benchmarks.parts.overhead_view import histogram, summary, tables
from benchmarks.parts.peers import EngineSettings, Running
from benchmarks.parts.streams import read_events


class InMemory(ClosedLoop):
    """A loop whose answers take a second of virtual time, and which notes how many were in flight."""

    def __init__(self, plan):
        super().__init__(plan, self._look)
        self.in_flight, self.seen, self.asked = 0, [], []

    def _look(self):
        self.seen.append(self.in_flight)

    async def _ask(self, session, prompt, tokens):
        self.in_flight += 1
        self.asked.append((prompt, tokens))
        await asyncio.sleep(tokens / 64)
        self.seen.append(self.in_flight)
        self.in_flight -= 1


def plan(**changes):
    return ClosedPlan(**{"url": "", "model": "m", "streams": 5, "tokens": 64, "seconds": 10.0, **changes})


# So many streams are in flight, no more and no fewer, from the window's opening to its closing.
async def test_always_as_many_in_flight():
    loop = InMemory(plan())
    await loop.run()
    opened = next(at for at, (_, tokens) in enumerate(loop.asked[5:]) if tokens == 64)
    assert opened == 0
    assert set(loop.seen[5 : 5 + 10 * 5]) == {5}


# The first answers are cut short at random, for streams must not go in step; all later ones are whole.
async def test_streams_do_not_go_in_step():
    loop = InMemory(plan())
    await loop.run()
    first = [tokens for _, tokens in loop.asked[:5]]
    assert len(set(first)) > 3
    assert {tokens for _, tokens in loop.asked[5:]} == {64}


# Streams do not begin together either: a script's tokens would come together from then on.
async def test_streams_do_not_begin_together():
    begun = []

    class Noting(InMemory):
        async def _ask(self, session, prompt, tokens):
            begun.append(asyncio.get_running_loop().time())
            await super()._ask(session, prompt, tokens)

    await Noting(plan(streams=50, begin_within=2.0)).run()
    first = sorted(begun)[:25]
    assert first[-1] - first[0] > 0.5
    assert len(set(first)) == 25


# The same seed gives the same prompts in the same order of each stream; another seed, others; none is twice.
async def test_prompts_are_seeded_and_different():
    loops = [InMemory(plan(seed=seed)) for seed in ("a", "a", "b")]
    for loop in loops:
        await loop.run()
    first, again, other = ([prompt for prompt, _ in loop.asked] for loop in loops)
    assert first == again
    assert not set(first) & set(other)
    assert len(set(first)) == len(first)


def window(*answers):
    return Window(10.0, 12.0, list(answers), (None, None), 0.1)


# Only what arrived within the window counts, and a piece counts as many tokens as the server says it held.
def test_throughput_is_of_the_window():
    inside = Answer(9.0, 4, pieces=[9.5, 10.5, 11.0, 12.5], tokens=8)
    assert window(inside).tokens_per_second == 2 * 2 / 2


# The time to first token is that of requests which were sent within the window.
def test_ttft_is_of_requests_sent_within_the_window():
    early, late = Answer(9.9, 1, pieces=[10.5]), Answer(11.0, 1, pieces=[12.5])
    assert window(early, late).ttft_ms == [1500.0]


# A gap counts if both of its ends are within the window.
def test_gaps_are_within_the_window():
    answer = Answer(9.0, 4, pieces=[9.9, 10.0, 10.5, 12.0, 12.1])
    assert window(answer).gaps_ms == [500.0, 1500.0]


# A stream's first token is its first text: vLLM sends a piece without any before it.
def test_a_piece_without_text_is_no_token():
    answer = Answer(0.0, 1)
    take_events([b'{"choices":[{"delta":{"role":"assistant","content":""}}]}'], answer)
    assert not answer.pieces
    take_events(
        [b'{"choices":[{"delta":{"content":"a"}}]}', b'{"choices":[],"usage":{"completion_tokens":1}}'],
        answer,
    )
    assert len(answer.pieces) == 1
    assert answer.tokens == 1


class Response:
    """What aiohttp gives, of fixed pieces."""

    def __init__(self, *pieces):
        self.content = self
        self._pieces = pieces

    async def iter_any(self):
        for piece in self._pieces:
            yield piece


# Events are read whole, however the network has cut them, and those that came together stay together.
async def test_events_are_put_together():
    response = Response(b"data: a\n\ndata: b\n", b"\n: comment\n\nda", b"ta: [DONE]\n\n")
    assert [events async for events in read_events(response)] == [[b"a"], [b"b"], [b"[DONE]"]]


def sample(peer, repetition, rate, group=0):
    return {
        "peer": peer,
        "group": group,
        "repetition": repetition,
        "streams": 8,
        "tokens_per_second": rate,
        "ttft_ms": [10.0, 20.0],
        "gaps_ms": histogram([1.0, 2.0]),
        "cpu_s": {"gateway": 1.0},
        "rss_mb": {"gateway": 100},
        "idle_cpu_s": 0.0,
        "stolen_cpu_s": 0.1,
        "generator_cpu": 0.05,
        "seconds": 2.0,
        "failed": 0,
    }


# A ratio is to the baseline of the same repetition and group, not to its median: the machine drifts.
def test_ratios_are_paired():
    samples = [
        *(sample("vllm", n, rate) for n, rate in enumerate((100.0, 200.0))),
        *(sample("ours", n, rate) for n, rate in enumerate((90.0, 100.0))),
        sample("vllm", 0, 1000.0, group=1),
    ]
    ours = next(row for row in summary(samples, "vllm") if row["peer"] == "ours")
    assert ours["tokens_per_second_ratio"] == [0.7, 0.5, 0.9]


# The histogram keeps every gap, and its percentiles are exact.
def test_histogram_keeps_all():
    told = histogram([0.0, 0.001, 5.0, 5.1, 1000.0])
    assert sum(told["buckets"].values()) == told["count"] == 5
    assert (told["p50"], told["max"]) == (5.0, 1000.0)


# The tables can be drawn of a result with a script and of one without.
@pytest.mark.parametrize(
    ("script", "rows"), [(None, 11), ({"time_to_first_token": 0.1, "inter_token": 0.05}, 13)]
)
def test_tables(script, rows):
    samples = [sample("vllm", 0, 100.0), sample("ours", 0, 90.0)]
    config = {"engine": "model", "script": script, "repetitions": 1, "seconds": 2.0}
    drawn = list(tables({"config": config, "summary": summary(samples, "vllm")}))
    assert [table.row_count for table in drawn] == [rows, 4]


# A figure of a thousand and more is shown whole, and no smaller one with more than three digits.
@pytest.mark.parametrize(("value", "shown"), [(4990.0, "4,990"), (999.0, "999"), (52.44, "52.4")])
def test_large_figures_are_whole(value, shown):
    samples = [sample("vllm", 0, value)]
    config = {"engine": "model", "script": None, "repetitions": 1, "seconds": 2.0}
    first, *_ = tables({"config": config, "summary": summary(samples, "vllm")})
    assert next(iter(first.columns[1].cells)) == shown


# What is not known is no figure, not zero: the CPU of servers that somebody else has started, a host's steal.
def test_unknown_processes_have_no_figures():
    unknown = {"cpu_s": {}, "rss_mb": {}, "stolen_cpu_s": None}
    samples = [sample(peer, 0, 100.0) | unknown for peer in ("vllm", "ours")]
    rows = summary(samples, "vllm")
    assert [row["cpu_s_per_1000_tokens"] for row in rows] == [None, None]
    assert [row["stolen_cores"] for row in rows] == [None, None]
    config = {"engine": "model", "script": None, "repetitions": 1, "seconds": 2.0}
    assert len(list(tables({"config": config, "summary": rows}))) == 1


# No peer is asked what another was: LiteLLM's prompts would be in the prefix cache of the server behind it.
def test_peers_share_no_prompts():
    config = Config("model", [8], 1.0, 1, 4, 1)
    seeds = {config.plan(Running(name, "http://127.0.0.1:1", "m"), 8, 0).seed for name in ("vllm", "litellm")}
    assert len(seeds) == 2


# vLLM's own server gets the settings that ray.serve.llm gets.
def test_engine_settings_are_the_same():
    settings = EngineSettings(
        "/models/m", {"max_model_len": 2048, "enforce_eager": True, "dtype": "bfloat16"}
    )
    assert settings.for_ray()["engine_kwargs"] == settings.engine_kwargs
    told = settings.for_vllm()
    assert told[4:] == ["--max-model-len", "2048", "--enforce-eager", "--dtype", "bfloat16"]
