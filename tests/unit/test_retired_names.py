"""The field's words: what was called otherwise once, and would have to be learnt, is not called so again."""

import ast
import io
import tokenize
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

RETIRED = {
    "Told": "MetricsSnapshot",
    "What": "Observed",
    "Wish": "ReservationRequest",
    "Home": "EngineHandle",
    "Telling": "MetricsReports",
    "Teller": "ProgressLine",
    "told_of": "located",
    "tells_of_others": "collects",
    "say_going": "send_goaway",
    "UNSPEAKABLE": "UNENCODABLE",
    "not_told": "unanswered",
    "read_whole": "read_inlined",
    "ReleaseTable": "RoutingTable",
    "release_table": "routing_table",
    "ChainRun": "Walk",
    "lay_out": "latency_of",
    "of_about": "elapsed_text",
    "Heard": "ChangeBatch",
    "Happened": "NumberedChange",
    "HearGateways": "AwaitGateways",
    "TENANTS_TOLD": "MAX_TENANTS_NAMED",
    "MAX_TOLD": "MAX_PROBLEMS",
    "Wishes": "ModelSetRequests",
    "LOOK_SECONDS": "REFRESH_SECONDS or POLL_SECONDS",
    "tell_what_stays": "log_remaining_engines",
    "refused_saying": "refused_with",
    "CommandAsked": "PendingCommand",
    "UNTOLD_LIMIT_SECONDS": "SILENT_LIMIT_SECONDS",
    "UNKEPT_LIMIT_SECONDS": "UNWRITTEN_LIMIT_SECONDS",
    "Progress": "ReportProgress or EffectProgress",
    "DoesNotFit": "nothing: it was dead",
    "ProbeMismatch": "nothing: it was dead",
}
"""Names, and what to say instead."""

FROM_OUTSIDE = {("runtime/cli/models.py", "Progress")}
"""Other libraries' names."""


def names_of(path):
    with tokenize.open(path) as file:
        text = file.read()
    return {t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.NAME}


# No module uses a retired name.
@pytest.mark.parametrize("room", sorted(path.name for path in (ROOT / "runtime").iterdir() if path.is_dir()))
def test_retired_names(room):
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "runtime" / room).rglob("*.py")
        for name in names_of(path) & RETIRED.keys()
    }
    assert found - FROM_OUTSIDE == set()


# A public class has its name to itself: one word is one thing.
def test_names_are_of_one_thing():
    homes = defaultdict(list)
    for path in (ROOT / "runtime").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}
