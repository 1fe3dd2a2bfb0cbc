"""The benchmark of an update under load: what is made of its records, and how a mix is told."""

import pytest
import yaml

from benchmarks import update
from benchmarks.parts.open_loop import Record
from benchmarks.parts.update_peers import OLD, Version, instructions, mixes_versions, replaced
from benchmarks.parts.update_view import Moments, memory_summary, plot, summary, table, thinned
from benchmarks.update import Config, verdict, wanted
from runtime.errors import CommandError

MOMENTS = Moments(
    begun=100.0, switched=110.0, finished=112.0, window=50.0, phases=[("load", 101.0), ("flip", 110.0)]
)


def answered(sent, release, pieces=(0.5, 1.0), **fields):
    arrivals = [sent + piece for piece in pieces]
    return Record(
        stream=True,
        sent=sent,
        first=arrivals[0],
        pieces=arrivals,
        ended=arrivals[-1],
        release=release,
        **fields,
    )


def failed(sent, error="HTTP 502"):
    return Record(stream=True, sent=sent, ended=sent, error=error)


def hops(*versions):
    return [{"step": str(position), "version": version} for position, version in enumerate(versions)]


def seen(*records, mixed=lambda _: False):
    return summary(records, MOMENTS, mixed, OLD)


# A request belongs to the phase in which it was sent; those that failed have no time to first token.
def test_a_request_belongs_to_the_phase_in_which_it_was_sent():
    found = seen(answered(99.9, 1), answered(100.0, 1, (2.0,)), failed(105.0), answered(110.0, 2, (3.0,)))
    assert found["ttft_ms"] == {
        "before": {"count": 1, "p50": 500.0, "p99": 500.0},
        "during": {"count": 1, "p50": 2000.0, "p99": 2000.0},
        "after": {"count": 1, "p50": 3000.0, "p99": 3000.0},
    }
    assert (found["requests"], found["failed"], found["mixed"]) == (4, 1, 0)


# What is compared are windows of one length: as long before the command as after the switch.
def test_windows_are_of_one_length():
    sent = (49.9, 50.0, 99.9, 110.0, 159.9, 160.0)
    found = seen(*(answered(at, 1, (1.0 if at in {50.0, 159.9} else 2.0,)) for at in sent))["ttft_ms"]
    assert found["before"] == {"count": 2, "p50": 1000.0, "p99": 2000.0}
    assert found["after"] == {"count": 2, "p50": 1000.0, "p99": 2000.0}


# Without a request in a phase there is no figure, rather than a good one.
def test_no_request_no_figure():
    assert seen(answered(90.0, 1))["ttft_ms"]["after"] == {"count": 0, "p50": None, "p99": None}


# A gap into which the command or the switch falls is the update's; one without any answer counts, too.
def test_gaps_are_put_to_the_phase_that_they_touch():
    found = seen(answered(90.0, 1, (1.0, 3.0)), answered(97.0, 1, (1.0, 6.0)), answered(111.0, 2, (1.0, 1.5)))
    assert found["longest_gap_s"]["one_stream"] == {"before": 2.0, "during": 5.0, "after": 0.5}
    assert found["longest_gap_s"]["any_answer"] == {"before": 5.0, "during": 9.0, "after": 0.5}


# Seconds count from the command: by the peer's word, and by who answered what clients sent.
def test_seconds_count_from_the_command():
    found = seen(answered(99.0, 1), answered(108.0, 2), answered(109.0, 1), failed(109.5), answered(111.0, 2))
    assert found["seconds"] == {
        "to_switch": 10.0,
        "to_finish": 12.0,
        "first_sent_to_new": 8.0,
        "last_sent_to_old": 9.0,
    }
    assert found["phases"] == [["load", 1.0], ["flip", 10.0]]


# An answer is mixed if ingress, router and writer were not all of one version, or do not say what they were.
@pytest.mark.parametrize(
    ("record", "mixed"),
    [
        (answered(0.0, 1, hops=hops(1, 1)), False),
        (answered(0.0, 2, hops=hops(2, 2)), False),
        (answered(0.0, 1, hops=hops(1, 2)), True),
        (answered(0.0, 2, hops=hops(1, 1)), True),
        (answered(0.0, 1, hops=[]), True),
        (answered(0.0, None, hops=hops(1, 1)), True),
    ],
)
def test_an_answer_of_two_versions_is_mixed(record, mixed):
    assert mixes_versions(record) is mixed


# A mixed answer is counted as one, and is none of the new version's.
def test_a_mixed_answer_is_counted():
    found = seen(answered(105.0, 2, hops=hops(2, 1)), mixed=mixes_versions)
    assert (found["mixed"], found["seconds"]["first_sent_to_new"]) == (1, None)
    assert found["samples"][0][3:6] == ["mixed", 2, [2, 1]]


# A deployment is replaced when a new replica runs and no old one does; one that only starts replaces nobody.
@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"old": "RUNNING"}, set()),
        ({"old": "RUNNING", "new": "STARTING"}, set()),
        ({"old": "RUNNING", "new": "RUNNING"}, set()),
        ({"old": "STOPPING", "new": "STARTING"}, set()),
        ({"old": "STOPPING", "new": "RUNNING"}, {"Router"}),
        ({"new": "RUNNING"}, {"Router"}),
        ({}, set()),
    ],
)
def test_a_deployment_is_replaced_when_new_replicas_run_alone(states, expected):
    assert replaced({"Router": states}, {"old"}) == expected


# Memory is what it was before the command, at its most, by kind of process there, and at the end.
def test_memory_at_its_peak():
    samples = [(99.0, {"a": 10.0}), (105.0, {"a": 10.0, "b": 25.0}), (120.0, {"b": 20.0})]
    found = memory_summary(samples, begun=100.0)
    assert (found["before"], found["peak"], found["end"]) == (10, 35, 20)
    assert found["at_peak"] == {"b": 25, "a": 10}
    assert found["samples"] == [[-1.0, 10], [5.0, 35], [20.0, 20]]


# A report's raw samples are bounded, in their order, and the same each time.
def test_samples_are_bounded():
    kept = thinned(range(10_000), 100)
    assert len(kept) == 100
    assert kept == sorted(kept) == thinned(range(10_000), 100)


def result(**changes):
    memory = memory_summary([(99.0, {"a": 10.0}), (111.0, {"a": 20.0})], MOMENTS.begun)
    found = seen(answered(95.0, 1), answered(102.0, 1), failed(103.0), answered(111.0, 2))
    peer = {"peer": "interlock", "repetition": 1, **found, "rss_mb": memory, "generator_cpu": 0.02, **changes}
    return {
        "config": {"rate": 0.4, "max_tokens": 64, "repetitions": 1},
        "skipped": {},
        "peers": [peer, peer | {"peer": "serve"}],
    }


# Interlock may not fail or mix a request; others may, for that is what is measured. All must be measured.
def test_what_is_wrong():
    assert verdict(result(failed=0)) == []
    assert "1 failed" in verdict(result())[0]
    assert "2 mixed" in verdict(result(failed=0, mixed=2))[0]
    assert verdict(result(failed=0) | {"skipped": {"serve": "no memory"}}) == [
        "serve was not measured: no memory"
    ]


# The table has a column for each peer.
def test_the_table_has_a_column_for_each_peer():
    assert [column.header for column in table(result()).columns] == ["", "interlock", "serve"]


# Peers take turns, and one that could not be measured once is told with the repetition in which it was so.
def test_peers_take_turns(monkeypatch):
    class Peer:
        stopped = 0

        def __init__(self, *_):
            pass

        def stop(self):
            Peer.stopped += 1

    turns = iter(["old", "failed", "old", "old"])

    def measured(*_):
        if (turn := next(turns)) == "failed":
            raise CommandError("no memory")
        return {"turn": turn}

    class Set:
        class content:  # noqa: N801 - what a set is read into
            digest = "d"

    monkeypatch.setattr(update, "_measure", measured)
    config = Config(rate=1.0, seconds=1.0, max_tokens=1, seed=1, repetitions=2)
    told = update._measure_all({"interlock": Peer, "serve": Peer}, (Set, Set), config)
    assert [(peer["peer"], peer["repetition"]) for peer in told["peers"]] == [
        ("interlock", 1),
        ("interlock", 2),
        ("serve", 2),
    ]
    assert verdict(told | {"peers": []}) == ["serve, repetition 1, was not measured: no memory"]
    assert Peer.stopped == 4


# Before and after the update come the same requests: arrivals repeat after as long as each is watched.
def test_the_load_repeats():
    class Peer:
        url, model, instructions = "http://nowhere", "m", None

    run = update._Run(Peer(), Config(rate=1.0, seconds=72.0, max_tokens=1, seed=1, repetitions=1))
    assert run._load.plan.cycle_s == 72.0


# What is quoted is over all repetitions of a peer; one in which nothing was answered has no part in it.
def test_ratios_over_repetitions():
    told = result()
    told["config"]["repetitions"] = 3
    first = told["peers"][0]
    slower = first["ttft_ms"] | {"after": {"count": 1, "p50": 1000.0, "p99": 1500.0}}
    silent = first["ttft_ms"] | {"after": {"count": 0, "p50": None, "p99": None}}
    told["peers"] = [
        first,
        first | {"repetition": 2, "ttft_ms": slower},
        first | {"repetition": 3, "ttft_ms": silent},
    ]
    shown = table(told)
    assert [column.header for column in shown.columns[1:]] == ["interlock", "interlock 2", "interlock 3"]
    assert shown.caption == (
        "interlock, TTFT p50 after to before: 1.50 (1.00 to 2.00)\n"
        "interlock, TTFT p99 after to before: 2.00 (1.00 to 3.00)"
    )


# The picture is drawn from the report alone, with a panel for each peer, also for one that failed throughout.
def test_the_picture_is_written(tmp_path):
    silent = seen(failed(95.0), failed(105.0))
    drawn = result()
    drawn["peers"].append(drawn["peers"][0] | silent)
    plot(drawn, tmp_path / "update.png")
    assert (tmp_path / "update.png").read_bytes().startswith(b"\x89PNG")


def written(tmp_path, *steps):
    chain = {
        "steps": list(steps),
        "answer": steps[-1]["id"],
        "samples": [{"messages": [{"role": "user", "content": "x"}]}],
    }
    path = tmp_path / "set.yaml"
    path.write_text(
        yaml.safe_dump({"name": "s", "engines": {"e": {"kind": "fake"}}, "chains": {"agent": chain}})
    )
    return path


ROUTE = {"id": "triage", "route": {"engine": "e", "choices": {"a": ["bill"], "b": ["bug"]}}}
ANSWER = {"id": "answer", "generate": {"engine": "e", "prompt": "About {{ steps.triage.choice }}."}}


# Clients of a server without a chain send what the chain's prompt comes to.
def test_who_has_no_chain_is_sent_its_prompt(tmp_path):
    assert instructions(Version.read(1, written(tmp_path, ROUTE, ANSWER))) == "About a."


# What can be written by hand and compared is a chain of a route and an answer; another one is refused.
def test_a_chain_of_another_form_is_refused(tmp_path):
    with pytest.raises(CommandError, match="a route and then an answer"):
        Version.read(1, written(tmp_path, {"id": "answer", "generate": {"engine": "e"}}))


# A server alone is started with vLLM; a scripted engine cannot stand for it.
def test_a_server_alone_is_vllms(tmp_path):
    with pytest.raises(CommandError, match="not vLLM's"):
        Version.read(1, written(tmp_path, ROUTE, ANSWER)).alone()


# A peer that nobody knows is refused before anything is started.
def test_an_unknown_peer_is_refused():
    with pytest.raises(CommandError, match="serve-as-it-comes"):
        wanted("interlock,nobody")
    assert list(wanted("serve, interlock")) == ["serve", "interlock"]
