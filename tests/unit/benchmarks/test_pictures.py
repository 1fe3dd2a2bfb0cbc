"""What benchmarks leave: reports, and pictures that are drawn from a report alone."""

import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import chain, swap
from benchmarks.parts import output, scale_view, swap_view


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
    scale_view.plot(
        {"config": config, "scenarios": {"alike": {"cutovers": cutovers}}}, tmp_path / "scale.png"
    )
    assert is_png(tmp_path / "scale.png")


# Times between tokens are drawn with the cutovers among them, of whichever kind these are.
@pytest.mark.parametrize("kinds", [[True], [True, False], []])
def test_of_streams_across_cutovers(tmp_path, kinds):
    swaps = [{"begun_s": 1.0 + n, "rollback_ms": 300.0, "from_standby": kind} for n, kind in enumerate(kinds)]
    swap_view.plot({"longest_gaps": [(0.0, 40.0), (0.2, 41.0)], "swaps": swaps}, tmp_path / "swap.png")
    assert is_png(tmp_path / "swap.png")


# Of each part of a run it is the longest gap of any stream that is shown; a gap belongs to where it ended.
def test_longest_gaps():
    streams = [[10.0, 10.05, 10.15], [10.1, 10.13, 10.45], [10.5]]
    assert swap.longest_gaps(streams, begun=10.0) == [(0.0, 100.0), (0.4, 320.0)]


# In a report a swap began so many seconds after the load did, whatever this machine's clock showed.
def test_a_swap_in_a_report():
    made = swap.Swap(1003.25, 300.0, from_standby=True, admission_gap_ms=0.1, skew_ms=2.0)
    row = swap.told(made, begun=1000.0)
    assert row.pop("begun_s") == 3.25
    assert row == {"rollback_ms": 300.0, "from_standby": True, "admission_gap_ms": 0.1, "skew_ms": 2.0}


# A run of swaps in which no stream had two tokens is drawn all the same.
def test_of_no_streams(tmp_path):
    swap_view.plot({"longest_gaps": [], "swaps": []}, tmp_path / "swap.png")
    assert is_png(tmp_path / "swap.png")


# A gateway that never acknowledges keeps its scenario's curve below all of them.
def test_a_gateway_that_never_acknowledges(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda _, at, shares, **__: drawn.append((at, shares)))
    scenario = {"cutovers": [{"acknowledged_ms": [1.0, 2.0]}, {"acknowledged_ms": [3.0]}]}
    config = {"gateways": 2, "cutovers": 2}
    with pytest.warns(UserWarning, match="No artists with labels"):
        scale_view.plot({"config": config, "scenarios": {"one is deaf": scenario}}, tmp_path / "scale.png")
    assert drawn == [([1.0, 2.0, 3.0], [0.25, 0.5, 0.75])]


# Who has no matplotlib is told so before anything is measured, and how to get it.
def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setattr(output, "find_spec", lambda _: None)
    monkeypatch.setattr(chain, "_deployed", lambda *_: pytest.fail("it was measured"))
    ran = CliRunner().invoke(chain.app, ["--plot", str(tmp_path / "chain.png")])
    assert ran.exit_code == 2
    assert "matplotlib" in ran.output
    assert not (tmp_path / "chain.png").exists()


# A report is the result as JSON, and it is said where it is; what was not asked for is not written.
def test_what_is_written(tmp_path, capsys):
    report, picture = tmp_path / "report.json", tmp_path / "picture.png"
    output.write(Console(), {"swaps": 3}, report, None, lambda *_: pytest.fail("it was drawn"))
    assert json.loads(report.read_text()) == {"swaps": 3}
    output.write(Console(), {"swaps": 3}, None, picture, lambda told, at: at.write_text(str(told)))
    assert picture.read_text() == "{'swaps': 3}"
    said = capsys.readouterr().out.replace("\n", "")
    assert f"report written to {report}" in said
    assert f"picture written to {picture}" in said
