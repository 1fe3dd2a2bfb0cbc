"""What is wrong, decided from facts: every reason has a row, and what is not wrong is no reason."""

import re
from dataclasses import replace

import pytest

from runtime.core.health.agent import MAX_TENANTS_NAMED
from runtime.core.health.diagnosis import examine
from runtime.core.health.infrastructure import NODE_NEWS_SECONDS
from runtime.core.health.report import (
    FEWEST,
    Deployment,
    Facts,
    HealthVerdict,
    Infrastructure,
    Node,
    unknown,
    worst,
)
from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.recent import OTHERS, PATIENT_SECONDS, Mark, Observed, ending
from runtime.core.model_set.digest import SHORT
from runtime.core.model_set.model_set import parse
from runtime.core.swap.release import ReleaseState as S
from runtime.core.swap.routes import GatewayReport
from runtime.core.swap.state import Change, ControlState, EngineRecord, EngineState, Release
from runtime.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    NoLiveRelease,
    QuotaExhausted,
    RateLimited,
)
from tests.unit.world import content, document

NOW = 10_000.0
SET = content(1, writer={"device": "gpu"})
WRITER, ROUTER = SET.engines["writer"], SET.engines["router"]
TIERS = ("infrastructure", "orchestration", "agent")


def engines(state=EngineState.LOADED, known=SET):
    return {d: EngineRecord(d, state, known.model_set.engines[name]) for name, d in known.engines.items()}


def report(gateway="gateway-0", **changes):
    return GatewayReport(gateway, 1, 9, **changes)


def activity(recent=None, gateway="gateway-0", **changes):
    return {gateway: GatewayActivity(gateway, recent=recent or {}, **changes)}


def release(state=S.LIVE, number=1, **changes):
    known = {"content": SET, "warm": True, "proven": True, "promoted": 5, **changes}
    return Release(number, f"v{number}.yaml", state, **known)


def deployment(name, running=1, wanted=1, status="HEALTHY", engine="", message=""):
    return Deployment(name, running, wanted, status, message, engine)


def cluster(*changed, **changes):
    """A cluster on which everything runs, but for the deployments that are ``changed``."""
    known = [deployment("Gateway"), deployment("SwapManager")]
    known += [deployment(f"engine-{d[:SHORT]}", engine=d[:SHORT]) for d in SET.engines.values()]
    found = {d.name: d for d in (*known, *changed)}
    nodes = (Node("a" * 40, "10.0.0.1", alive=True),)
    made = Infrastructure(nodes, 8, 2, tuple(found.values()), {"aaaa": "HEALTHY"})
    return replace(made, **changes)


def state_with(**changes):
    known = {
        "releases": {1: release()},
        "engines": engines(),
        "gateways": {"gateway-0": report()},
        "wanted": Change("c", "v1.yaml", 1),
        **changes,
    }
    return ControlState(**known)


def facts(*, state=None, **changes):
    known = {"state": state or state_with(), "now": NOW, "cluster": cluster(), **changes}
    return Facts(**known)


def seen(**counts):
    """What the gateway tells that has seen so much of the chain."""
    marks = {
        "done": Mark(Observed.HOP_DONE, 1, "agent", "answer"),
        "hop_failed": Mark(Observed.HOP_FAILED, 1, "agent", "answer"),
        "overran": Mark(Observed.HOP_OVERRAN, 1, "agent", "answer"),
        "in_time": Mark(Observed.IN_TIME, 1, "agent"),
        "late": Mark(Observed.LATE, 1, "agent"),
        "failed": Mark(Observed.FAILED, 1, "agent"),
        "acme": Mark(Observed.REFUSED, 1, "agent", "acme"),
        "nobody": Mark(Observed.REFUSED, 1, "agent", ""),
        "away": Mark(Observed.FAILED, 0, ""),
    }
    return activity({marks[k]: n for k, n in counts.items()})


def dead(seconds, *, expected=False):
    gone = Node("b" * 40, "10.0.0.2", alive=False, ended=NOW - seconds, expected=expected, why="lost")
    return cluster(nodes=(*cluster().nodes, gone))


WRITER_APP = f"engine-{WRITER[:SHORT]}"


def writers(running, wanted=1, status="HEALTHY", message=""):
    return cluster(deployment(WRITER_APP, running, wanted, status, WRITER[:SHORT], message))


FAILED = release(S.FAILED, 2, reason="no room\nstack")
STANDBY = content(2)

WRONG = [
    # what is the case, its tier, its verdict, what is said
    (facts(store="the store does not answer: x"), 0, "unhealthy", "the store does not answer: x"),
    (facts(cluster="no answer within 3 s"), 0, "degraded", "nothing is known of nodes.*no answer within 3 s"),
    (facts(cluster=cluster(nodes=())), 0, "unhealthy", "no Ray node is alive"),
    (facts(cluster=dead(20)), 0, "degraded", r"node bbbbbbbbbbbb at 10.0.0.2 died 20 s ago \(lost\)"),
    (facts(cluster=cluster(proxies={"n": "UNHEALTHY"})), 0, "unhealthy", "HTTP proxy on node n"),
    (
        facts(cluster=cluster(proxies={"n": "UNHEALTHY", "m": "HEALTHY"})),
        0,
        "degraded",
        "HTTP proxy on node n",
    ),
    (facts(cluster=cluster(deployment("Gateway", 1, 2))), 0, "degraded", "1 of 2 replicas of Gateway run"),
    (facts(cluster=cluster(deployment("Gateway", 0, 0))), 0, "unhealthy", "0 of 1 replicas of Gateway run"),
    (
        facts(cluster=cluster(deployment("SwapManager", 1, 1, "UNHEALTHY", message="a\n it died\n"))),
        0,
        "degraded",
        "1 of 1 replicas of SwapManager run, Serve calls it UNHEALTHY: it died;",
    ),
    (
        facts(cluster=writers(0)),
        0,
        "unhealthy",
        rf"0 of 1 replicas of engine writer \({WRITER[:SHORT]}\) of release 1 run; 2 of 8 GPUs are free",
    ),
    (
        facts(cluster=cluster(deployments=(deployment("Gateway"),))),
        0,
        "unhealthy",
        "0 of 1 replicas of engine w",
    ),
    (facts(cluster=writers(1, 2)), 0, "degraded", "1 of 2 replicas of engine writer"),
    (facts(cluster=writers(1, 2, "UPSCALING", "no place")), 0, "degraded", "1 of 2 replicas.*: no place"),
    (
        facts(
            state=state_with(
                releases={1: release(), 2: release(S.STANDBY, 2, content=STANDBY)},
                engines=engines() | engines(EngineState.ASLEEP, STANDBY),
            )
        ),
        0,
        "degraded",
        "0 of 1 replicas of engine writer .* of release 2 run;",
    ),
    (facts(state=state_with(releases={}, wanted=None)), 1, "unhealthy", "none is wanted: name a model set"),
    (
        facts(state=state_with(releases={1: release(S.LOADING)}, engines=engines(EngineState.ABSENT))),
        1,
        "unhealthy",
        "release 1 is loading, which waits for 2 of 2 engines to load",
    ),
    (facts(state=state_with(paused=7)), 1, "degraded", "release 1 sleeps for a swap"),
    (
        facts(state=state_with(engines=engines(EngineState.WAKING))),
        1,
        "unhealthy",
        r"answers nobody: engine \w+ \(\w+\) is waking",
    ),
    (
        facts(state=state_with(releases={1: release(proven=False)})),
        1,
        "unhealthy",
        "its engines have yet to answer",
    ),
    (
        facts(state=state_with(releases={1: release(), 2: FAILED}, wanted=Change("d", "v2.yaml", 2))),
        1,
        "degraded",
        "failed: no room; try it again as it is: interlock retry 2; or deploy what is mended",
    ),
    (
        facts(
            state=state_with(
                releases={1: release(), 2: release(S.VERIFYING, 2)},
                wanted=Change("d", "v2.yaml", 2),
                gateways={"gateway-0": report(faults={2: "no answer from engine x"})},
            )
        ),
        1,
        "degraded",
        "a gateway cannot reach an engine of release 2: no answer from engine x",
    ),
    (
        facts(state=state_with(gateways={"gateway-0": report(faults={1: "no answer"})})),
        1,
        "degraded",
        "a gateway cannot reach an engine of release 1: no answer;",
    ),
    (facts(state=state_with(gateways={})), 1, "unhealthy", "no gateway reports"),
    (facts(state=state_with(hearing=True)), 1, "degraded", "the manager has restarted"),
    (
        facts(state=state_with(lagging=frozenset({"gateway-0"}))),
        1,
        "unhealthy",
        "gateway-0 does not follow the routing table",
    ),
    (facts(silent={"gateway-0": 6.0}), 1, "unhealthy", "gateway-0 has not reported for 6 s"),
    (
        facts(
            state=state_with(gateways={"gateway-0": report(), "g": report("g")}),
            silent={"g": 6.0, "gateway-0": 1.0},
        ),
        1,
        "degraded",
        "g has not reported for 6 s",
    ),
    (
        facts(activity=seen(done=97, hop_failed=3)),
        1,
        "degraded",
        r"3 of 100 hops of step answer of chain agent of release 1 failed.* on engine writer \(",
    ),
    (facts(activity=seen(hop_failed=3)), 1, "unhealthy", "3 of 3 hops"),
    (facts(state=state_with(releases={}, wanted=None)), 2, "unhealthy", "so no request is answered"),
    (facts(state=state_with(gateways={})), 2, "degraded", "nothing is known of requests"),
    (facts(activity=seen(away=3)), 2, "unhealthy", "3 of 3 requests were turned away"),
    (facts(activity=seen(away=3, in_time=97)), 2, "degraded", "3 of 100 requests were turned away"),
    (
        facts(activity=seen(in_time=94, late=6, overran=4)),
        2,
        "degraded",
        "6 of 100 requests of chain agent of release 1 took longer than 30 s; .*share: answer 4",
    ),
    (facts(activity=seen(in_time=3, late=3)), 2, "unhealthy", "3 of 6 requests .*no hop was over a share"),
    (facts(activity=seen(in_time=97, failed=3)), 2, "degraded", "3 of 100 requests .* ended in an error"),
    (facts(activity=seen(in_time=3, failed=3)), 2, "unhealthy", "3 of 6 requests .* ended in an error"),
    (facts(activity=seen(in_time=999, acme=1)), 2, "degraded", "requests refused: acme 1;"),
    (facts(activity=seen(in_time=9, acme=3, nobody=1)), 2, "degraded", "acme 3, callers without a key 1;"),
    (facts(activity=seen(in_time=3, acme=3)), 2, "unhealthy", "3 of 6 requests .* refused by budgets"),
]


def told(known):
    return examine(known).as_json()["tiers"]


# Each thing that is wrong is told in its own tier, with its verdict, in one sentence.
@pytest.mark.parametrize(("known", "tier", "verdict", "sentence"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong(known, tier, verdict, sentence):
    tier = told(known)[TIERS[tier]]
    assert tier["verdict"] == verdict
    assert [bool(re.search(sentence, said)) for said in tier["reasons"]].count(True) == 1


SCALED = replace(
    engines()[WRITER],
    spec=SET.model_set.engines["writer"].model_copy(
        update={"deployment_config": {"autoscaling_config": {"initial_replicas": 4}}}
    ),
)

RIGHT = {
    "all is well": facts(),
    "nothing was asked": facts(activity=seen()),
    "everything was answered": facts(activity=seen(done=100, in_time=100)),
    "too few to tell": facts(activity=seen(hop_failed=FEWEST - 1, late=FEWEST - 1, failed=FEWEST - 1)),
    "too small a share": facts(
        activity=seen(done=991, hop_failed=9, in_time=1100, failed=9, late=49),
    ),
    "a node died long ago": facts(cluster=dead(NODE_NEWS_SECONDS)),
    "a node was told to go": facts(cluster=dead(1, expected=True)),
    "replicas come for more load": facts(cluster=writers(1, 3, "UPSCALING")),
    "fewer replicas than at the start": facts(
        state=state_with(engines={WRITER: SCALED, ROUTER: engines()[ROUTER]}), cluster=writers(1)
    ),
    "a heartbeat went missing": facts(silent={"gateway-0": 4.0}),
    "a gateway left": facts(silent={"gone": 60.0}),
    "what a release did that is over": facts(
        state=state_with(releases={1: release(), 2: release(S.STANDBY, 2)}, gateways={"g": report("g")}),
        activity=activity({Mark(Observed.FAILED, 2, "agent"): 99}, "g"),
    ),
    "an engine that comes up": facts(
        state=state_with(
            releases={1: release(), 2: release(S.LOADING, 2, content=STANDBY)},
            engines=engines(EngineState.ABSENT, STANDBY) | engines(),
            wanted=Change("d", "v2.yaml", 2),
        )
    ),
}


# What is no fault is no reason: a swap under way, few errors, load, old news, and no requests at all.
@pytest.mark.parametrize("known", RIGHT.values(), ids=RIGHT)
def test_what_is_not_wrong(known):
    health = examine(known).as_json()
    assert health["verdict"] == "healthy", health


# What is wrong in one tier is not said of another, where that does not follow from it.
@pytest.mark.parametrize(
    ("known", "wrong"),
    [
        (facts(cluster="x"), "infrastructure"),
        (facts(cluster=writers(1, 2)), "infrastructure"),
        (facts(silent={"gateway-0": 9.0}), "orchestration"),
        (facts(activity=seen(in_time=3, late=3)), "agent"),
        (facts(activity=seen(in_time=99, acme=1)), "agent"),
    ],
)
def test_others_stay_healthy(known, wrong):
    assert [name for name, tier in told(known).items() if tier["verdict"] != "healthy"] == [wrong]


# The worst tier makes the verdict, and the worst reasons come first.
def test_the_worst_counts():
    health = examine(facts(activity=seen(done=97, hop_failed=3), cluster=dead(1), store="no")).as_json()
    assert health["verdict"] == "unhealthy"
    assert health["tiers"]["infrastructure"]["reasons"][0].startswith("no: keys and budgets")
    assert len(health["tiers"]["infrastructure"]["reasons"]) == 2
    assert worst([]) is HealthVerdict.HEALTHY


# If nobody can be asked, no tier is healthy, and each says why.
def test_unknown():
    health = unknown("the manager is away").as_json()
    assert health["verdict"] == "degraded"
    for tier in health["tiers"].values():
        assert tier["reasons"] == ["nothing is known: the manager is away"]


# The counts of all gateways are one, and stand beside the verdict.
def test_numbers():
    counts = {Mark(Observed.IN_TIME, 1, "agent"): 2, Mark(Observed.HOP_DONE, 1, "agent", "answer"): 2}
    gateways = {name: report(name) for name in ("a", "b")}
    state = state_with(gateways=gateways, releases={1: release(promoted=10)})
    tiers = told(facts(state=state, activity=activity(counts, "a") | activity(counts, "b")))
    assert tiers["infrastructure"]["numbers"]["nodes"] == {"alive": 1, "dead": 0}
    assert tiers["infrastructure"]["numbers"]["gpus"] == {"total": 8, "free": 2}
    assert tiers["orchestration"]["numbers"]["gateways"] == {"known": 2, "acknowledged": 0}
    assert tiers["orchestration"]["numbers"]["engines"] == {"ready": 2, "wanted": 2}
    assert tiers["orchestration"]["numbers"]["hops"][1]["done"] == 4
    assert tiers["agent"]["numbers"]["chains"][0]["in_time"] == 4


# Of many tenants at their caps those with most refusals are named, and that there are others.
def test_many_tenants():
    tenants = {Mark(Observed.REFUSED, 1, "agent", f"t{n}"): n for n in range(1, MAX_TENANTS_NAMED + 2)}
    [said] = told(facts(activity=activity(tenants)))["agent"]["reasons"][1:]
    assert "t6 6, t5 5, t4 4, t3 3, t2 2 and others" in said
    few = {Mark(Observed.REFUSED, 1, "agent", "t1"): 1, Mark(Observed.REFUSED, 1, "agent", OTHERS): 1}
    [said] = told(facts(activity=activity(few)))["agent"]["reasons"]
    assert "t1 1 and others" in said


# A request counts by what ended it; what its client did counts as nothing, unless it was kept waiting.
@pytest.mark.parametrize(
    ("error", "answered", "took", "what"),
    [
        (None, True, 1.0, Observed.IN_TIME),
        (None, True, 1.1, Observed.LATE),
        (None, False, 1.0, None),
        (None, False, 1.1, Observed.LATE),
        (DeadlineExceeded("x"), False, 0.5, Observed.LATE),
        (EngineUnavailable("x"), False, 9.0, Observed.FAILED),
        (NoLiveRelease("x"), False, 0.0, Observed.FAILED),
        (KeyError("a bug"), False, 0.0, Observed.FAILED),
        (InvalidRequest("x"), False, 9.0, None),
        (QuotaExhausted("x"), False, 0.0, Observed.REFUSED),
        (RateLimited("x", retry_after=PATIENT_SECONDS), False, 0.0, None),
        (RateLimited("x", retry_after=PATIENT_SECONDS + 1), False, 0.0, Observed.REFUSED),
    ],
)
def test_how_a_request_ends(error, answered, took, what):
    assert ending(error, answered=answered, took=took, objective=1.0) is what


# In time is within the sum of the latency budget if every step has a share, else within the deadline.
@pytest.mark.parametrize(
    ("budget", "objective"),
    [({}, 30.0), ({"answer": "2s"}, 30.0), ({"triage": "200ms", "answer": "2s"}, 2.2)],
)
def test_latency_objective(budget, objective):
    declared = document(1)
    declared["chains"]["agent"]["latency_budget"] = budget
    assert parse(declared, "set.yaml", lambda name: name).chains["agent"].latency_objective == objective
