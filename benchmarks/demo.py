"""The whole idea in one run: deploy a model set, swap it under load, prove that nothing was lost.

Everything is real: Ray Serve, vLLM, two models, all on this machine's CPU. Run it with ``make demo``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from benchmarks.parts import exits
from benchmarks.parts.fetched_models import fetch_models
from benchmarks.parts.local_cluster import LocalCluster
from benchmarks.parts.open_loop import LoadGenerator, Plan
from benchmarks.parts.report import Moments, is_live, swap_report, verdict
from runtime.cli.client import AdminClient
from runtime.cli.status_view import render
from runtime.errors import CommandError, Unavailable
from runtime.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "http://127.0.0.1:8000"
MODEL = "support-agent"
QUESTION = "I was charged twice for my subscription. What can I do?"
QUESTIONS = (
    QUESTION,
    "Where can I find the invoice of last month?",
    "The app crashes whenever I open the settings page.",
    "I cannot log in to my account any more.",
    "Please give me my money back.",
    "The page does not load on my phone.",
)
ANSWER_S = 6.0
"""How long an answer takes by itself, unless the command line says of how many tokens it is: whatever the
machine, some five are under way at the default rate, and more while the next set is warmed."""
RAMP_S = 10.0
"""How long the load goes on before it counts as load before the swap: the first answers have ended then."""
ANSWER_TOKENS = 16, 400
"""The least and the most tokens that answers get for that."""
SWAP_TIMEOUT_S = 420.0
DRAIN_TIMEOUT_S = 120.0

console = Console()


def main(
    report: Annotated[Path | None, typer.Option(help="Also write the report here, as JSON.")] = None,
    rate: Annotated[float, typer.Option(help="Requests per second, open loop.")] = 0.7,
    max_tokens: Annotated[
        int | None,
        typer.Option(help=f"Tokens of each answer; default: what takes this machine {ANSWER_S:g} s."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Seconds of load before the swap, and again after it.")
    ] = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of the arrivals.")] = 1,
) -> None:
    """Swap support v1 for v2 under load on a local Ray cluster and print what happened."""
    # Ten requests after the cutover are compared with those before: not a burst with a lull.
    plan = Plan(ADDRESS, MODEL, QUESTIONS, rate=rate, even=True, stream_share=0.9, seed=seed)
    with exits.told(console):
        _check_port()
        console.rule("models")
        fetch_models()
        with LocalCluster(ROOT) as cluster:
            found = _swap_under_load(cluster, plan, max_tokens, seconds)
    console.print(_report_table(found))
    if report is not None:
        report.write_text(json.dumps(found, indent=2) + "\n")
        console.print(f"report written to {report}", highlight=False)
    wrong = verdict(found)
    for line in wrong:
        console.print(Text(line, "red"))
    if wrong:
        raise typer.Exit(1)
    console.print(
        "[green]no request failed, none mixed two releases, clients and gateways count alike[/green]"
    )


def _check_port() -> None:
    try:
        httpx.get(ADDRESS, timeout=1.0, trust_env=False)
    except httpx.ConnectError:
        return
    except httpx.TransportError as error:
        raise CommandError(f"something else listens at {ADDRESS} ({error}); stop it and try again") from error
    raise CommandError(f"something else already answers at {ADDRESS}; stop it and try again")


def tokens_in(seconds: float, answer: Mapping[str, Any]) -> int:
    """Return how many tokens take ``seconds``, by what an ``answer`` and its prompt took."""
    hop = answer["interlock"]["hops"][-1]
    each: float = hop["duration_ms"] / 1000.0 / max(hop["completion_tokens"], 1)
    least, most = ANSWER_TOKENS
    return min(max(round(seconds / each), least), most)


def _swap_under_load(
    cluster: LocalCluster, plan: Plan, max_tokens: int | None, seconds: float
) -> dict[str, Any]:
    client = AdminClient(Settings(), ADDRESS)
    console.rule("deploy support v1")
    console.print("serve deploy serve_configs/support-v1.yaml")
    cluster.deploy(ROOT / "serve_configs/support-v1.yaml")
    _follow(client, "models/support/v1.yaml")
    asked = _ask()
    plan = replace(plan, max_tokens=max_tokens or tokens_in(ANSWER_S, asked))
    console.rule("swap to support v2 under load")
    console.print(f"{plan.rate:g} requests per second, answers of {plan.max_tokens} tokens", highlight=False)
    load, status, moments = asyncio.run(_load_and_swap(cluster, client, plan, seconds))
    console.line()  # elsewhere than on a terminal the live display's last line is left open
    found = swap_report(load.records, status, moments)
    found["tokens"]["client"] += asked["usage"]["total_tokens"]
    return found | {"load": {"rate": plan.rate, "max_tokens": plan.max_tokens}}


def _follow(client: AdminClient, model_set: str) -> None:
    """Show the status until ``model_set`` is live. Raises CommandError with the reason if it failed."""
    end = time.monotonic() + SWAP_TIMEOUT_S
    with Live(Text("waiting for the application"), console=console, refresh_per_second=4) as live:
        while time.monotonic() < end:
            try:
                status = client.status()
            except Unavailable:
                status = None
            if status is not None:
                live.update(render(status))
                if is_live(status.as_json(), model_set):
                    return
            time.sleep(0.5)
    raise CommandError(f"{model_set} is not live after {SWAP_TIMEOUT_S:g} s")


def _ask() -> dict[str, Any]:
    """Ask one question, print the answer with its hops, return it."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
    answer = httpx.post(f"{ADDRESS}/v1/chat/completions", json=body, timeout=60.0, trust_env=False)
    if answer.is_error:
        raise CommandError(f"the question was refused: {answer.text}")
    found: dict[str, Any] = answer.json()
    console.print(Text(f"\nQ {QUESTION}\nA {found['choices'][0]['message']['content']}"))
    table = Table("step", "engine", "prompt", "completion", "queue ms", "first token ms", "ms", title="hops")
    for hop in found["interlock"]["hops"]:
        times = [f"{hop[name]:.1f}" for name in ("queue_ms", "ttft_ms", "duration_ms")]
        tokens = [str(hop["prompt_tokens"]), str(hop["completion_tokens"])]
        table.add_row(hop["step"], hop["engine"][:12], *tokens, *times)
    console.print(table)
    return found


async def _load_and_swap(
    cluster: LocalCluster, client: AdminClient, plan: Plan, seconds: float
) -> tuple[LoadGenerator, Mapping[str, Any], Moments]:
    wall_offset = time.time() - time.perf_counter()
    load = LoadGenerator(plan)
    offered = asyncio.create_task(load.run())
    try:
        with Live(console=console, refresh_per_second=4) as live:
            screen = _Screen(client, load, live)
            await screen.until(lambda _: False, RAMP_S, "load begins")
            steady = time.perf_counter()
            await screen.until(lambda _: False, seconds, "load before the swap")
            deployed = time.perf_counter()
            deploying = asyncio.create_task(
                asyncio.to_thread(cluster.deploy, ROOT / "serve_configs/support-v2.yaml")
            )
            swapped = await screen.until(
                lambda status: is_live(status, "models/support/v2.yaml"), SWAP_TIMEOUT_S, "swap"
            )
            await deploying
            if not swapped:
                raise CommandError(f"v2 is not live after {SWAP_TIMEOUT_S:g} s")
            await screen.until(lambda _: False, seconds, "load after the swap")
            drained = await screen.until(_old_has_drained, DRAIN_TIMEOUT_S, "drain of v1")
            load.stop()
            await offered
            if not drained:
                raise CommandError(f"v1 has not drained after {DRAIN_TIMEOUT_S:g} s")
            await screen.until(
                lambda status: not any(g["leases"] for g in status["gateways"]), 10.0, "last lease"
            )
    finally:
        load.stop()
        offered.cancel()
    status = await _last_status(client)
    entered = next(r for r in status["releases"] if r["number"] == status["live"])["entered"]
    return load, status, Moments(steady, deployed, entered["live"] - wall_offset)


def _old_has_drained(status: Mapping[str, Any]) -> bool:
    return not any(release["state"] == "draining" for release in status["releases"])


async def _last_status(client: AdminClient) -> Mapping[str, Any]:
    """Return a status that holds every gateway's last report: they report each second."""
    await asyncio.sleep(2 * Settings().heartbeat_s)
    return (await asyncio.to_thread(client.status)).as_json()


class _Screen:
    """The live display: phase, load, and the manager's status."""

    def __init__(self, client: AdminClient, load: LoadGenerator, live: Live) -> None:
        self._client = client
        self._load = load
        self._live = live

    async def until(self, condition: Callable[[Mapping[str, Any]], bool], seconds: float, phase: str) -> bool:
        """Show the status until ``condition`` holds; return whether it did within ``seconds``."""
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < seconds:
            try:
                status = await asyncio.to_thread(self._client.status)
            except Unavailable:
                continue  # a busy machine: the load says whether anything failed
            self._live.update(Group(self._headline(phase, elapsed), render(status)))
            if condition(status.as_json()):
                return True
            await asyncio.sleep(0.5)
        return False

    def _headline(self, phase: str, elapsed: float) -> Text:
        sent, still_open = len(self._load.records), self._load.open
        failed = sum(record.error is not None for record in self._load.records)
        return Text(
            f"{phase}, {elapsed:.0f} s: {sent} requests sent, {still_open} open, {failed} failed",
            "bold red" if failed else "bold",
        )


def _report_table(report: Mapping[str, Any]) -> Table:
    table = Table("what", "value", title="report")
    for name in ("requests", "failed", "mixed", "streams_spanning_cutover"):
        table.add_row(name.replace("_", " "), str(report[name]))
    table.add_row("swap seconds", ", ".join(f"{k} {v}" for k, v in report["swap_seconds"].items()))
    for name, values in report["ttft_ms"].items():
        table.add_row(f"ttft ms, {name.replace('_', ' ')}", f"p50 {values['p50']}, p99 {values['p99']}")
    for name in ("tokens", "engines", "versions"):
        table.add_row(name, ", ".join(f"{k} {v}" for k, v in report[name].items()))
    return table


if __name__ == "__main__":
    typer.run(main)
