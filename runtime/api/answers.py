"""What the API answers, described for ``/openapi.json``. Answers may have more members than these."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from runtime.core.budgets.budget import CapKind, Per, Unit, Window
from runtime.core.health.report import HealthVerdict

# -- clients --------------------------------------------------------------------------------------


class ErrorObject(BaseModel):
    """What OpenAI's clients read of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """Every answer that is an error."""

    error: ErrorObject


class Model(BaseModel):
    """A chain of the live release, as OpenAI's clients list models."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    interlock: dict[str, Any]


class ModelList(BaseModel):
    """The chains of the live release."""

    object: Literal["list"]
    data: list[Model]


class ChatCompletion(BaseModel):
    """An answer that is not streamed. ``interlock`` has its release, its hops and its times."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any]
    interlock: dict[str, Any]


class Alive(BaseModel):
    """The gateway's process answers."""

    status: Literal["ok"]


class Ready(BaseModel):
    """The gateway takes requests."""

    status: Literal["ready"]
    release: int
    model_set: str


# -- operators: releases; their forms are runtime.core.views.forms --------------------------------


class AuditRow(BaseModel):
    """Who asked for what, and what came of it. ``at`` is in seconds since the Unix epoch."""

    at: float
    actor: str
    action: str
    from_release: int | None
    to_release: int | None
    outcome: str
    detail: str


class AuditList(BaseModel):
    """Entries of the audit log, newest first."""

    entries: list[AuditRow]


class HealthTier(BaseModel):
    """One tier: its verdict, why, and the numbers behind it."""

    verdict: HealthVerdict
    reasons: list[str]
    numbers: dict[str, Any]


class HealthReport(BaseModel):
    """The three tiers of health."""

    verdict: HealthVerdict
    tiers: dict[str, HealthTier]


# -- operators: keys and money --------------------------------------------------------------------


class ShownKey(BaseModel):
    """A key without its secret. Times are in seconds since the Unix epoch."""

    id: str
    tenant: str
    name: str
    prefix: str
    created: float
    revoked: float | None


class MadeKey(ShownKey):
    """A new key. Its secret is shown this once."""

    key: str


class KeyList(BaseModel):
    """Every key that ever was."""

    keys: list[ShownKey]


class CapEntry(BaseModel):
    """A budget or a limit; amounts of money are text."""

    id: int
    tenant: str
    key: str
    per: Per
    unit: Unit
    window: Window
    limit: int | str
    kind: CapKind
    hard: bool
    spent: int | str


class Budget(CapEntry):
    """A budget or a limit, and how its newest window stands.

    Of one that counts each key, session or request by itself, that of the ``subject`` that has taken most of
    it, of so many ``subjects``.
    """

    reserved: int | str
    warned: int
    subject: str
    subjects: int


class BudgetList(BaseModel):
    """Every budget and limit."""

    budgets: list[Budget]


class BudgetSet(BudgetList):
    """Every budget and limit after one was set, and what to know about that."""

    warnings: list[str]


class BudgetRemoved(BaseModel):
    """The id of what was removed."""

    removed: int


class ForecastEntry(CapEntry):
    """When a cap runs out at the present rate; null if it does not within its window."""

    subject: str
    per_second: float
    runs_out: float | None
    ends: float | None


class ForecastList(BaseModel):
    """A forecast for every budget and limit."""

    forecast: list[ForecastEntry]


class UsageGroup(BaseModel):
    """What one group has spent; the member that names the group is called as ``by`` says."""

    requests: int
    hops: int
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    cost: str


class UsageList(BaseModel):
    """What was spent, by group."""

    by: str
    since: float
    usage: list[UsageGroup]
