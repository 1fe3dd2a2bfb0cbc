"""Settings of one Interlock installation: the only module that reads the environment.

Every field can be set by an environment variable ``INTERLOCK_<FIELD>`` on the Ray nodes, or in the
``args`` of the Serve application, which win.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from runtime.core.model_set.llm_config import VLLM_WORKER_IN_CORE
from runtime.errors import SettingsError

_PREFIX = "INTERLOCK_"
_MAX_ADMIN_KEY = 512
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?|\*")

_Seconds = Annotated[float, Field(gt=0.0, le=86_400.0, allow_inf_nan=False)]


def _default_store() -> str:
    return f"sqlite:///{platformdirs.user_state_path('interlock') / 'interlock.db'}"


class Settings(BaseSettings):
    """Where things are kept and how long to wait; nothing about models (that is the model set)."""

    # What is wrong is never printed: it may be a secret.
    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    def __init__(self, **given: Any) -> None:
        """Read the environment; ``given`` wins.

        Raises:
            SettingsError: one of them is wrong; the message names it and never repeats its value.

        """
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise SettingsError("; ".join(map(_complaint, error.errors(include_input=False)))) from None

    store_url: str = Field(default_factory=_default_store, repr=False)
    """SQLAlchemy URL of the store. SQLite is for one head node, PostgreSQL for a cluster."""

    models_dir: Path = Field(default_factory=lambda: platformdirs.user_cache_path("interlock") / "models")
    """Where ``interlock models fetch`` puts models, and where engines look for them by name."""

    root: Path = Field(default_factory=Path.cwd)
    """Folder that a relative ``model_set`` path in ``user_config`` starts from."""

    admin_key: SecretStr | None = None
    """Bearer key of ``/admin``. Without one, admin calls are answered on loopback only."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Web pages of which origins may call ``/v1`` (``https://app.example.org``, several with commas, or
    ``*``). None by default: then no browser lets a page read an answer."""

    haproxy_on_loopback: bool = False
    """Serve's HAProxy listens on loopback alone, so whoever comes through it is on this host.

    HAProxy does not pass on who calls: where it is on, no caller counts as on this host unless this is set.
    """

    max_body_bytes: Annotated[int, Field(ge=1, le=2**30)] = 4 * 1024 * 1024
    """Largest request body that is read."""

    drain_timeout_s: _Seconds = 75.0
    """How long gateways and replicas of engines that stop wait for the answers under way.

    Serve fixes it when they are deployed, so a model set with a longer deadline is refused.
    """

    gateway_silence_s: _Seconds = 15.0
    """A gateway that has not reported for so long is taken as gone, and its leases with it."""

    heartbeat_s: _Seconds = 1.0
    """How often a gateway reports when nothing changes."""

    ledger_days: Annotated[int, Field(ge=15, le=36_500)] = 90
    """How many days the ledger keeps a row for each hop, and what a session has spent of a budget in total.

    Sums stay for ever. The forecast looks back for fourteen days.
    """

    audit_days: Annotated[int, Field(ge=1, le=36_500)] = 400
    """How many days the audit log is kept."""

    address: str = "http://127.0.0.1:8000"
    """Where the ``interlock`` command finds the gateway."""

    @field_validator("models_dir", "root")
    @classmethod
    def _at_home(cls, path: Path) -> Path:
        """Take ``~`` as a home folder: no shell has seen what stands in a file."""
        try:
            return path.expanduser()
        except RuntimeError as error:
            raise ValueError(str(error)) from error

    @field_validator("admin_key")
    @classmethod
    def _sendable(cls, key: SecretStr | None) -> SecretStr | None:
        """Refuse a key that no header can carry: it would lock everybody out, or nobody."""
        text = key.get_secret_value() if key is not None else None
        if text == "":
            raise ValueError("is empty: unset it, or set a key")
        if text is not None and not (len(text) <= _MAX_ADMIN_KEY and re.fullmatch(r"[!-~]+", text)):
            raise ValueError(
                f"must be 1 to {_MAX_ADMIN_KEY} visible ASCII characters, without spaces or line ends "
                "(a file that it is read from often ends with one)"
            )
        return key

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            return names
        origins = tuple(str(name).strip().rstrip("/").lower() for name in names)
        if not all(_ORIGIN.fullmatch(origin) for origin in origins if origin):
            raise ValueError("must be origins, such as https://app.example.org, with commas between, or *")
        return tuple(filter(None, origins))


def _complaint(error: Any) -> str:
    """Return a validation error of pydantic's for operators: the variable, and what is wrong with it."""
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{name} is no setting; there is: {', '.join(Settings.model_fields)}"
    reason = str(error["msg"]).removeprefix("Value error, ")
    return f"{_PREFIX}{name.upper()} (args: {name}): {reason}"


class TraceSettings(BaseSettings):
    """Those of OpenTelemetry's own variables that decide whether requests are traced, and by which protocol.

    Its SDK reads the others by itself: endpoints and headers, service name and resource, sampler, batches.
    """

    model_config = SettingsConfigDict(env_prefix="OTEL_", frozen=True)

    sdk_disabled: str = ""
    traces_exporter: str = ""
    exporter_otlp_endpoint: str = ""
    exporter_otlp_traces_endpoint: str = ""
    exporter_otlp_protocol: str = ""
    exporter_otlp_traces_protocol: str = ""

    @property
    def on(self) -> bool:
        """Say whether traces are asked for: by the exporter's name, or by where it shall send them."""
        if self.sdk_disabled.strip().lower() == "true":
            return False
        exporters = {name.strip() for name in self.traces_exporter.split(",")} - {""}
        named = self.exporter_otlp_traces_endpoint or self.exporter_otlp_endpoint
        return "otlp" in exporters if exporters else bool(named)

    @property
    def protocol(self) -> str:
        """The exporter's protocol."""
        return self.exporter_otlp_traces_protocol or self.exporter_otlp_protocol or "http/protobuf"


_LOAD_LOG = "INTERLOCK_LOAD_LOG"


def hand_load_log_down(path: Path | None) -> None:
    """Let child processes log to ``path`` from now on how an engine comes up; None: do not log it."""
    if path is None:
        os.environ.pop(_LOAD_LOG, None)
    else:
        os.environ[_LOAD_LOG] = str(path)


def load_log() -> Path | None:
    """Return where this process logs how an engine comes up; None if it does not."""
    path = os.environ.get(_LOAD_LOG)
    return Path(path) if path else None


def vllm_worker_in_core() -> bool:
    """Say whether vLLM's worker shall run in the engine core's process (``serve.hosts.vllm.executor``)."""
    return os.environ.get(VLLM_WORKER_IN_CORE) == "1"


class RayTls(NamedTuple):
    """The files by which Ray's processes know each other: PEM, as its documentation has them made."""

    certificate: str
    key: str
    authority: str


def ray_tls() -> RayTls | None:
    """Return the certificates that encrypt Ray's connections, and so ours; None if Ray uses no TLS."""
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return None
    names = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
    return RayTls(*(os.environ.get(name, "") for name in names))


def behind_haproxy() -> bool:
    """Say whether requests come through Serve's HAProxy, which does not pass on the client's address."""
    return os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with ``changes``, to hand to a child process.

    It is handed on, not read: a proxy or a pip index that is set here must reach the child.
    """
    return {**os.environ, **changes}
