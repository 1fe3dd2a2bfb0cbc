"""Pictures of the benchmarks, each drawn from a report alone."""

import sys

import pytest

from benchmarks import chain, scale, swap
from benchmarks.picture import blank
from runtime.errors import CommandError


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def of_chains(*, bare):
    """A report of two repetitions, with bare calls beside the chains or without."""
    kind = {"p50": 2.0, "p99": 5.0}
    chains = {str(hops): {"hop_ms": kind, "chain_ms": kind} for hops in chain.HOPS}
    return {"repetitions": [chains | (dict.fromkeys(chain.BARE, kind) if bare else {})] * 2}


# What a hop costs is drawn with or without bare calls to hold it against.
@pytest.mark.parametrize("bare", [False, True])
def test_of_chains(tmp_path, bare):
    chain.plot(of_chains(bare=bare), tmp_path / "chain.png")
    assert is_png(tmp_path / "chain.png")


# Every scenario of cutovers is drawn.
def test_of_cutovers_in_virtual_time(tmp_path):
    cutovers = [{"acknowledged_ms": [1.0, 2.0, 400.0]}]
    config = {"gateways": 3, "cutovers": 1}
    scale.plot({"config": config, "scenarios": {"alike": {"cutovers": cutovers}}}, tmp_path / "scale.png")
    assert is_png(tmp_path / "scale.png")


# Times between tokens are drawn with the cutovers among them, of whichever kind these are.
@pytest.mark.parametrize("kinds", [[True], [True, False], []])
def test_of_streams_across_cutovers(tmp_path, kinds):
    swaps = [{"begun": 1.0 + n, "rollback_ms": 300.0, "from_standby": kind} for n, kind in enumerate(kinds)]
    swap.plot({"longest_gaps": [(0.0, 40.0), (0.2, 41.0)], "swaps": swaps}, tmp_path / "swap.png")
    assert is_png(tmp_path / "swap.png")


# Of each part of a run it is the longest gap of any stream that is shown; a gap belongs to where it ended.
def test_longest_gaps():
    streams = [[10.0, 10.05, 10.15], [10.1, 10.13, 10.45], [10.5]]
    assert swap.longest_gaps(streams, begun=10.0) == [(0.0, 100.0), (0.4, 320.0)]


# Who has no matplotlib is told so, and how to get it.
def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(CommandError, match="pip install matplotlib"):
        blank(1, 1)
