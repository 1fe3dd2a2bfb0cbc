"""Every error that Interlock raises on purpose, split by whose fault it is and whether to retry.

InterlockError
├── RequestError            the client's request is wrong; the same request fails again
│   ├── InvalidRequest      a field is missing, malformed or out of range
│   ├── RequestTooLarge     the body is over the limit
│   ├── RequestIncomplete   the body did not come in time
│   ├── UnsupportedMedia    the body is not said to be JSON, where that keeps web pages out
│   ├── UnknownModel        no chain of the live release has this name
│   ├── UnknownKey          there is no API key of this id
│   ├── UnknownBudget       there is no budget of this id
│   ├── Unauthenticated     an API key is needed, and the request comes with none that is valid
│   ├── QuotaExhausted      a budget has no room for it; a retry soon does not help
│   └── AccessDenied        a call from somewhere, or with a key, that may not make it
├── Unavailable             nobody's fault; the same request may succeed later
│   ├── NoLiveRelease       no release serves yet
│   ├── Overloaded          too many requests wait here already
│   ├── RateLimited         a limit has no room for it in this window
│   ├── EngineUnavailable   an engine did not answer, or answered with a fault of its own
│   │   ├── EngineLost      the replica that had taken the call is gone; another may answer it
│   │   └── NoManager       the manager's process has ended, and no other has taken over
│   ├── StoreUnavailable    the database does not answer
│   └── DeadlineExceeded    the chain's deadline passed
├── CommandRefused          an operator's command does not fit the state, which it carries; nothing was done
│   ├── UnknownRelease      there is no release of this number
│   ├── WrongState          the release cannot do this from its state
│   ├── EtagMissing         the command does not say which edition of the releases it was decided by
│   └── StaleEtag           the releases have changed since the edition that the command was decided by
├── ModelSetError           the operator's model set is wrong: file, key, reason
├── SettingsError           a setting of this installation is wrong: which variable, and how
├── StoreError              the store cannot be opened, or a newer Interlock has changed it
│   ├── OtherStore          a gateway's store is not the manager's
│   └── StoreHeld           another manager works on this store
├── DeploymentRefused       the Serve config declares of Interlock's deployments what cannot work
├── ModelFetchError         a model could not be brought or does not match its digest
├── SwapError               a candidate cannot become live; the live release goes on
│   ├── EngineLoadError     an engine did not come up
│   └── WarmupError         the set's own samples failed on the new engines
├── CommandError            the command line was given something it cannot do
└── InternalError           a bug or a lost race inside Interlock
    ├── IllegalTransition   an event that the transition table does not know
    ├── WrongEngine         an engine answered that is not of the leased release
    └── Fenced              another manager has taken over the journal
        └── HistoryLost     the store has lost what was written to it, as after a restore
"""

from __future__ import annotations


class InterlockError(Exception):
    """Root of the tree."""


class RequestError(InterlockError):
    """The client's request is wrong. ``param`` names the field, ``code`` is OpenAI's error code."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class InvalidRequest(RequestError):
    """A field is missing, malformed or out of range."""


class RequestTooLarge(RequestError):
    """The body is over the configured limit."""


class RequestIncomplete(RequestError):
    """The body did not come in time."""


class UnsupportedMedia(RequestError):
    """The body is not said to be JSON, where that is what keeps web pages out."""


class UnknownModel(RequestError):
    """No chain of the live release has this name."""


class UnknownKey(RequestError):
    """There is no API key of this id."""


class Unauthenticated(RequestError):
    """An API key is needed, and the request comes with none that is valid."""


class UnknownBudget(RequestError):
    """There is no budget of this id."""


class QuotaExhausted(RequestError):
    """A budget of the caller has no room for what the request may spend."""


class AccessDenied(RequestError):
    """The caller may not make this call: from where it comes, or with the key that it has."""


class Unavailable(InterlockError):
    """Nobody's fault: the same call may succeed later. ``retry_after`` is a hint in seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(Unavailable):
    """A limit has no room for the request. ``retry_after`` is exact: until the window ends."""


class NoLiveRelease(Unavailable):
    """No release serves yet."""


class Overloaded(Unavailable):
    """Too many requests wait here already."""


class EngineUnavailable(Unavailable):
    """An engine did not answer, or answered with a fault of its own."""


class EngineLost(EngineUnavailable):
    """The replica that had taken the call is gone, and its answer with it; another may answer it."""


class NoManager(EngineUnavailable):
    """The manager's process has ended, and no other has taken over: nobody decides anything now."""


class StoreUnavailable(Unavailable):
    """The database does not answer, stays locked for too long, or cannot be written.

    ``detail`` is the database's own message: it may name its address, and is for operators alone.
    """

    def __init__(self, message: str, *, retry_after: float = 1.0, detail: str = "") -> None:
        super().__init__(message, retry_after=retry_after)
        self.detail = detail


class DeadlineExceeded(Unavailable):
    """The chain's deadline passed before the answer was complete."""


class CommandRefused(InterlockError):
    """An operator's command does not fit. ``state`` is that of the release, or of the releases."""

    code = "refused"

    def __init__(self, message: str, state: str = "") -> None:
        super().__init__(message)
        self.state = state

    def __reduce__(self) -> tuple[type[CommandRefused], tuple[str, str]]:
        """Keep the state when the error crosses processes."""
        return type(self), (str(self), self.state)


class UnknownRelease(CommandRefused):
    """There is no release of this number."""

    code = "unknown_release"


class WrongState(CommandRefused):
    """The release cannot do this from the state that it is in."""

    code = "wrong_state"


class EtagMissing(CommandRefused):
    """The command does not say which edition of the releases it was decided by."""

    code = "etag_missing"


class StaleEtag(CommandRefused):
    """The releases have changed since the edition that the command was decided by."""

    code = "stale_etag"


class ModelSetError(InterlockError):
    """A model set that cannot be used: which file, line and key, why, and the nearest right key.

    ``others`` are lines of the same form, for everything else that is wrong.
    """

    def __init__(
        self,
        source: str,
        key: str,
        reason: str,
        nearest: str | None = None,
        line: int | None = None,
        others: tuple[str, ...] = (),
    ) -> None:
        hint = f"; did you mean {nearest!r}?" if nearest else ""
        where = source if line is None else f"{source}:{line}"
        message = f"{where}: {key}: {reason}{hint}" if key else f"{where}: {reason}{hint}"
        super().__init__("\n".join([message, *others]))
        self.source = source
        self.key = key
        self.reason = reason
        self.nearest = nearest
        self.line = line
        self.others = others

    def __reduce__(
        self,
    ) -> tuple[type[ModelSetError], tuple[str, str, str, str | None, int | None, tuple[str, ...]]]:
        """Keep the parts when the error crosses processes: pickle would pass the message alone."""
        return type(self), (self.source, self.key, self.reason, self.nearest, self.line, self.others)


class SettingsError(InterlockError):
    """A setting of this installation is wrong. Says which variable and how, and never what it holds."""


class StoreError(InterlockError):
    """The store cannot be opened, or a newer Interlock has changed its tables."""


class OtherStore(StoreError):
    """A gateway's store is of another installation than its manager's: keys and budgets would differ."""


class StoreHeld(StoreError):
    """Another manager works on this store; says which one."""


class DeploymentRefused(InterlockError):
    """The Serve config has a setting of a deployment that cannot work: which key, why, and what instead."""


class ModelFetchError(InterlockError):
    """A model could not be brought, or what came does not match its digest."""


class SwapError(InterlockError):
    """A candidate cannot become live; the live release goes on."""


class EngineLoadError(SwapError):
    """An engine did not come up."""


class WarmupError(SwapError):
    """The model set's own samples failed on the new engines."""


class CommandError(InterlockError):
    """The command line was given something it cannot do."""


class InternalError(InterlockError):
    """A bug or a lost race inside Interlock."""


class IllegalTransition(InternalError):
    """An event that the transition table does not know. Nothing was changed."""


class WrongEngine(InternalError):
    """An engine answered that is not of the leased release. The answer is thrown away."""


class Fenced(InternalError):
    """Another manager has taken over the journal; this one must stop."""


class HistoryLost(Fenced):
    """The store does not hold what this manager has written to it; the next one reads what is there."""
