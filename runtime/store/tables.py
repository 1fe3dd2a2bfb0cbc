"""Every table of the store, declared. How a database comes to have them: ``runtime/store/migrations``."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()

JOURNAL = sa.Table(
    "journal",
    METADATA,
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
)

CONTENTS = sa.Table(
    "contents",
    METADATA,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
)

SNAPSHOT = sa.Table(
    "snapshot",
    METADATA,
    sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
)

AUDIT = sa.Table(
    "audit",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("from_release", sa.Integer),
    sa.Column("to_release", sa.Integer),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)

EPOCH = sa.Table(
    "epoch",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
)

INSTALLATION = sa.Table(
    "installation",
    METADATA,
    sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("inherits", sa.Boolean, nullable=False),
)

PULSE = sa.Table(
    "pulse",
    METADATA,
    sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("beats", sa.BigInteger, nullable=False),
    sa.Column("filler", sa.LargeBinary, nullable=False),
)

HOLDER = sa.Table(
    "holder",
    METADATA,
    sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("beats", sa.BigInteger, nullable=False),
)

LEDGER = sa.Table(
    "ledger",
    METADATA,
    sa.Column("hop", sa.Text, primary_key=True),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("session", sa.Text, nullable=False),
    sa.Column("chain", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("release", sa.Integer, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("admitted", sa.Float, nullable=False, index=True),
    sa.Column("prompt", sa.BigInteger, nullable=False),
    sa.Column("cached", sa.BigInteger, nullable=False),
    sa.Column("completion", sa.BigInteger, nullable=False),
    sa.Column("reasoning", sa.BigInteger, nullable=False),
    sa.Column("prompt_price", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("cached_price", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("completion_price", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("cost", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("queue_ms", sa.Float),
    sa.Column("ttft_ms", sa.Float),
    sa.Column("duration_ms", sa.Float, nullable=False),
)

_SUMMED = ("hops", "prompt", "cached", "completion", "reasoning", "cost")

LEDGER_SUMS = sa.Table(
    "ledger_sums",
    METADATA,
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("tenant", "key", "chain", "step")),
    sa.Column("release", sa.Integer, primary_key=True, autoincrement=False),
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("engine", "purpose", "outcome")),
    *(
        sa.Column(name, sa.BigInteger, nullable=False)
        for name in ("requests", "requests_by_step", "requests_by_engine", "requests_by_outcome", *_SUMMED)
    ),
)

SESSION_SUMS = sa.Table(
    "session_sums",
    METADATA,
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("session", sa.Text, primary_key=True),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("requests", *_SUMMED)),
)

LEDGER_LATE = sa.Table(
    "ledger_late",
    METADATA,
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("edition", sa.BigInteger, nullable=False),
)

LEDGER_HORIZON = sa.Table(
    "ledger_horizon",
    METADATA,
    sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("summed", sa.BigInteger, nullable=False),
    sa.Column("kept", sa.BigInteger, nullable=False),
)

CAPS = sa.Table(
    "caps",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("per", sa.Text, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("window", sa.Text, nullable=False),
    sa.Column("limit", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("hard", sa.Boolean, nullable=False),
    sa.UniqueConstraint("tenant", "key", "per", "unit", "window", name="one_cap"),
    # Else SQLite would give a new cap the id of one that is gone, whose spending may still be reported.
    sqlite_autoincrement=True,
)

COUNTERS = sa.Table(
    "counters",
    METADATA,
    sa.Column("cap", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("window", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("spent", sa.BigInteger, nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False),
    sa.Column("warned", sa.Integer, nullable=False, server_default="0"),
    sa.Column("used", sa.Float, nullable=False, server_default="0"),
)

METRICS = sa.Table(
    "metrics",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("counts", sa.LargeBinary, nullable=False),
)

RESERVATIONS = sa.Table(
    "reservations",
    METADATA,
    sa.Column("call", sa.Text, primary_key=True),
    sa.Column("cap", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("window", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.Float, nullable=False, index=True),
)

KEYS = sa.Table(
    "keys",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("revoked", sa.Float),
    sa.Index("keys_digest", "digest", unique=True),
)
