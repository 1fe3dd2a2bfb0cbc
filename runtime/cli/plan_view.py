"""A plan as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from runtime.cli.tables import Grid
from runtime.core.declaration.units import size_text
from runtime.core.model_set.digest import SHORT


def render_plan(plan: Mapping[str, Any]) -> RenderableType:
    """Return the whole plan as something rich can print."""
    gpus = [_gpus(plan["gpus"])] if plan.get("gpus") else []
    cpus = [_cpus(plan["cpus"])] if plan.get("cpus") else []
    return Group(_engines(plan), _devices(plan), *gpus, *cpus, _cost(plan))


def _engines(plan: Mapping[str, Any]) -> Grid:
    grid = Grid(("engine", "what", "replicas", "weights", "KV cache", "overhead"), title="engines")
    for name in plan["reused"]:
        grid.row(Text(name), "reused", "", "", "", "")
    for engine in plan["loaded"]:
        taken = engine["footprint"]
        sizes = (size_text(taken[part]) for part in ("weights", "kv_cache", "overhead"))
        grid.row(
            Text(f"{engine['name']} {engine['digest'][:SHORT]}"), "loaded", str(engine["replicas"]), *sizes
        )
    for digest in plan["unloaded"]:
        grid.row(digest[:SHORT], "unloaded after the rollback window", "", "", "", "")
    return grid


def _devices(plan: Mapping[str, Any]) -> Grid:
    grid = Grid(("device", "total", "free", "freed meanwhile", "needed", "short of"), title="devices")
    for device in plan["devices"]:
        short = device["shortfall"]
        sizes = (size_text(device[part]) for part in ("total", "free", "freed", "needed"))
        grid.row(Text(device["device"]), *sizes, Text(size_text(short) if short else "", "red"))
    return grid


def _gpus(gpus: Mapping[str, Any]) -> Text:
    """Return what Ray counts: an engine that sleeps has given back memory, and no GPU."""
    holders = [
        f"{h['gpus']:g} by {h['engine']} of release {'/'.join(map(str, h['releases']))}" for h in gpus["held"]
    ]
    holders += [f"{gpus['others']:g} by others"] if gpus.get("others") else []
    text = Text(f"GPUs: {gpus['needed']:g} needed of {gpus['total']}, held: {', '.join(holders) or 'none'}")
    return text.append(f", short of {gpus['shortfall']:g}", "red") if gpus["shortfall"] else text


def _cpus(cpus: Mapping[str, Any]) -> Text:
    """Return what Ray counts: no engine is placed without its own."""
    needed, free, total = cpus["needed"], cpus["free"], cpus["total"]
    text = Text(f"CPUs that Ray counts: {needed:g} needed, {free:g} free of {total:g}")
    return text.append(f", short of {cpus['shortfall']:g}", "red") if cpus["shortfall"] else text


def _cost(plan: Mapping[str, Any]) -> Text:
    text = Text(f"strategy {plan['strategy']}: {plan['cost']}\n")
    text.append(f"warm-up takes at most {plan['warmup_tokens']} tokens\n")
    text.append("it fits", "green") if plan["fits"] else text.append("it does not fit", "red")
    return text
