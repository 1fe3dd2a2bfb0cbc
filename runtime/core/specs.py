"""The model set as frozen values, parsed once.

``parse`` is the one way in: it refuses unknown keys, dangling references, bad durations and bad
templates with the file, the key's path and the nearest valid key, and leaves nothing to be found
out by a request. Reading files is the caller's: ``parse`` gets a function for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from runtime.core import templates
from runtime.core.cost import Price, TokenPrice
from runtime.core.document import Document, Problem, document_of
from runtime.core.nearest import nearest
from runtime.core.sampling import OPENABLE
from runtime.core.units import Duration, Size, TimeShare
from runtime.errors import ModelSetError

NAME = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"
"""Names of model sets, engines and chains: they appear in URLs, labels and Ray's names."""

IDENTIFIER = r"^[a-z][a-z0-9_]*$"
"""Names of steps: a prompt reads them as ``steps.<id>``."""

Name = Annotated[str, Field(pattern=NAME, max_length=63)]
Identifier = Annotated[str, Field(pattern=IDENTIFIER, max_length=63)]


class Spec(BaseModel):
    """Base of all parts of a model set: frozen, and an unknown key is an error with a suggestion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Tell of unknown keys beside what else is wrong, but for the keys that they were meant to be."""
        unknown = [key for key in value if key not in cls.model_fields] if isinstance(value, Mapping) else []
        if not unknown:
            return handler(value)
        told = [_unknown(str(key), list(cls.model_fields)) for key in unknown]
        found = [InitErrorDetails(type=error, loc=(), input=None) for error in told]
        meant = {(error.context or {})["nearest"] for error in told}
        try:
            handler({key: item for key, item in value.items() if key in cls.model_fields})
        except ValidationError as error:
            found += [
                _again(d)
                for d in error.errors(include_url=False)
                if d["loc"][-1:] not in {(m,) for m in meant}
            ]
        raise ValidationError.from_exception_data(cls.__name__, found)


def _again(detail: ErrorDetails) -> InitErrorDetails:
    """Return an error as pydantic takes it, to be raised beside others."""
    kind = PydanticCustomError(detail["type"], "{told}", {**detail.get("ctx", {}), "told": detail["msg"]})
    return InitErrorDetails(type=kind, loc=detail["loc"], input=detail["input"])


def _unknown(key: str, valid: Sequence[str]) -> PydanticCustomError:
    return PydanticCustomError(
        "unknown_key",
        "unknown key; valid here: {valid}",
        {"key": key, "valid": ", ".join(valid), "nearest": nearest(key, valid)},
    )


# -- engines ------------------------------------------------------------------------------------


PLACEMENT_EXAMPLE = "placement_group_config: {bundles: [{GPU: 0.45, CPU: 1}]}"
"""How a set says that an engine takes a share of a GPU."""

_Bundle = dict[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]]


class _Placement(BaseModel):
    """Of a ``placement_group_config`` what Ray sets aside: resources by name, as ray.serve.llm reads them."""

    bundles: list[_Bundle] | None = None
    bundle_per_worker: _Bundle | None = None

    def each(self, shards: int) -> list[_Bundle]:
        """Return the bundles of a replica that is spread over ``shards`` devices."""
        return [self.bundle_per_worker] * shards if self.bundle_per_worker is not None else self.bundles or []


class LLMConfigSpec(Spec):
    """``ray.serve.llm.LLMConfig`` as its users write it, less what Interlock sets itself."""

    model_loading_config: dict[str, Any]
    engine_kwargs: dict[str, Any] = {}
    accelerator_type: str | None = None
    accelerator_config: dict[str, Any] | None = None
    placement_group_config: dict[str, Any] | None = None
    lora_config: dict[str, Any] | None = None
    deployment_config: dict[str, Any] = {}
    runtime_env: dict[str, Any] | None = None
    experimental_configs: dict[str, Any] = {}
    log_engine_metrics: bool = True

    @field_validator("model_loading_config")
    @classmethod
    def _names_a_model(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "model_id" not in value:
            raise PydanticCustomError("missing_model_id", "model_id is missing: the model's name")
        if not isinstance(value["model_id"], str):
            raise _at(("model_id",), "the model's name is text", text=True)
        return value

    @field_validator("placement_group_config")
    @classmethod
    def _says_what_is_set_aside(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            placement = _Placement.model_validate(value or {})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise _at(first["loc"], f"{first['msg']}; write: {PLACEMENT_EXAMPLE}") from error
        if value is not None and (placement.bundles is None) == (placement.bundle_per_worker is None):
            raise _at((), f"it has either bundles or bundle_per_worker; write: {PLACEMENT_EXAMPLE}")
        return value


DeviceKind = Literal["gpu", "cpu"]
"""A GPU, or the main memory of a node."""


class Memory(Spec):
    """What one replica takes on each of its devices, where it is known better than it is estimated."""

    weights: Size | None = None
    kv_cache: Size | None = None
    overhead: Size | None = None


class PriceSpec(Spec):
    """What an engine's tokens cost, in units of a currency per million tokens."""

    prompt: TokenPrice
    cached: TokenPrice | None = None
    """Of the prompt, what came from the prefix cache; default: as much as the rest of it."""
    completion: TokenPrice = 0

    @property
    def per_token(self) -> Price:
        """The price of one token of each kind."""
        cached = self.prompt if self.cached is None else self.cached
        return Price(self.prompt, cached, self.completion)


class VllmEngine(Spec):
    """A generating model on vLLM, hosted by ``ray.serve.llm``."""

    kind: Literal["vllm"]
    llm_config: LLMConfigSpec
    load_timeout: Duration = 600.0
    memory: Memory = Memory()
    price: PriceSpec | None = None

    @property
    def sleeps(self) -> bool:
        """Say whether it can give its KV cache up and keep weights and graphs."""
        return self.llm_config.engine_kwargs.get("enable_sleep_mode") is True

    @property
    def device(self) -> DeviceKind:
        """Where it runs."""
        return "cpu" if (self.llm_config.accelerator_config or {}).get("kind") == "cpu" else "gpu"

    @property
    def shards(self) -> int:
        """Over how many devices each replica is spread."""
        kwargs = self.llm_config.engine_kwargs
        return int(kwargs.get("tensor_parallel_size") or 1) * int(kwargs.get("pipeline_parallel_size") or 1)

    @property
    def _bundles(self) -> list[_Bundle]:
        """What Ray sets aside for one replica, beside what ``ray_actor_options`` ask for."""
        if self.device == "cpu":
            return []
        wanted = self.llm_config.placement_group_config
        return _Placement.model_validate(wanted).each(self.shards) if wanted else [{"GPU": 1.0}] * self.shards

    @property
    def gpu_share(self) -> float | None:
        """The part of a GPU that each shard takes; None if it takes whole ones, or none.

        vLLM knows one size for all its workers: of bundles that differ, the first with a GPU counts.
        """
        first = next((bundle["GPU"] for bundle in self._bundles if "GPU" in bundle), 0.0)
        return first if 0.0 < first < 1.0 else None

    @property
    def gpus(self) -> float:
        """How many GPUs Ray keeps for each replica for as long as it exists, asleep or not."""
        shards = sum(bundle.get("GPU", 0.0) for bundle in self._bundles)
        return shards + _num_gpus(self.llm_config.deployment_config)

    @property
    def cpus(self) -> float:
        """How many CPUs Ray keeps for each replica: its actor's, and those of its placement group."""
        bundles = self._bundles
        if self.device == "cpu":
            wanted = self.llm_config.placement_group_config
            one_each = [{"CPU": 1.0}] * self.shards
            bundles = _Placement.model_validate(wanted).each(self.shards) if wanted else one_each
        return _num_cpus(self.llm_config.deployment_config) + sum(b.get("CPU", 0.0) for b in bundles)

    @property
    def context_length(self) -> int | None:
        """How many tokens a prompt and its answer may have together, where the set says so."""
        length = self.llm_config.engine_kwargs.get("max_model_len")
        return length if isinstance(length, int) and length > 0 else None

    @property
    def source(self) -> str | None:
        """Where the weights come from: a fetched model's name, a folder, or a hub's id."""
        config = self.llm_config.model_loading_config
        source = config.get("model_source", config["model_id"])
        return source if isinstance(source, str) else None

    @property
    def pinned(self) -> str | None:
        """Which commit of a hub's repository it is."""
        revision = self.llm_config.engine_kwargs.get("revision")
        return revision if isinstance(revision, str) else None

    @property
    def replicas(self) -> int:
        """Return how many replicas are wanted at the start."""
        return _replicas(self.llm_config.deployment_config)


class TransformersEngine(Spec):
    """An encoder run by ``transformers`` in the replica's own process."""

    kind: Literal["transformers"]
    model: str
    revision: str | None = None
    """The commit of a model that comes from a hub."""
    task: Literal["embed"] = "embed"
    max_length: Annotated[int, Field(ge=1)] = 256
    deployment_config: dict[str, Any] = {}
    load_timeout: Duration = 300.0
    memory: Memory = Memory()
    price: PriceSpec | None = None

    @property
    def sleeps(self) -> bool:
        """Return False: an encoder holds no KV cache."""
        return False

    @property
    def device(self) -> DeviceKind:
        """Where it runs."""
        return "gpu" if self.gpus else "cpu"

    @property
    def gpus(self) -> float:
        """How many GPUs Ray keeps for each replica."""
        return _num_gpus(self.deployment_config)

    @property
    def cpus(self) -> float:
        """How many CPUs Ray keeps for each replica."""
        return _num_cpus(self.deployment_config)

    @property
    def shards(self) -> int:
        """Return 1."""
        return 1

    @property
    def context_length(self) -> int:
        """How many tokens of a text are read."""
        return self.max_length

    @property
    def source(self) -> str | None:
        """Where the weights come from: a fetched model's name, a folder, or a hub's id."""
        return self.model

    @property
    def pinned(self) -> str | None:
        """Which commit of a hub's repository it is."""
        return self.revision

    @property
    def replicas(self) -> int:
        """Return how many replicas are wanted at the start."""
        return _replicas(self.deployment_config)


class FakeEngine(Spec):
    """A scripted engine for tests of everything around engines; it has no weights."""

    kind: Literal["fake"]
    load: Duration = 0.0
    ping: Duration = 0.0
    time_to_first_token: Duration = 0.0
    inter_token: Duration = 0.0
    tokens: Annotated[int, Field(ge=1)] = 8
    context_length: Annotated[int, Field(ge=1)] = 4096
    reply: str = "word"
    fail: Literal["load", "warm", "generate"] | None = None
    deployment_config: dict[str, Any] = {}
    load_timeout: Duration = 60.0
    memory: Memory = Memory()
    price: PriceSpec | None = None
    device: DeviceKind = "cpu"
    shards: Annotated[int, Field(ge=1)] = 1
    sleeps: bool = True
    sleep: Duration = 0.0
    wake: Duration = 0.0
    slept_reply: str | None = None
    """What it replies once it has slept, if that is not what it replied before."""
    receipts: str | None = None
    """File to which it appends each call's tokens, counted apart from the meter that is to be checked."""

    @property
    def gpus(self) -> float:
        """Return 0: whatever device it plays to be on, Ray keeps none for it."""
        return 0.0

    @property
    def cpus(self) -> float:
        """How many CPUs Ray keeps for each replica; none unless the set says so."""
        return _num_cpus(self.deployment_config) if "ray_actor_options" in self.deployment_config else 0.0

    @property
    def source(self) -> str | None:
        """Return None: nothing is loaded."""
        return None

    @property
    def pinned(self) -> str | None:
        """Return None: nothing is loaded."""
        return None

    @property
    def replicas(self) -> int:
        """Return how many replicas are wanted at the start."""
        return _replicas(self.deployment_config)


EngineSpec = Annotated[VllmEngine | TransformersEngine | FakeEngine, Field(discriminator="kind")]
_ENGINE_KINDS = ("vllm", "transformers", "fake")


def _replicas(deployment_config: Mapping[str, Any]) -> int:
    """Return how many replicas there are from the start: all of them are warmed before any request."""
    scaling = deployment_config.get("autoscaling_config") or {}
    floor = scaling.get("initial_replicas") or scaling.get("min_replicas") or 1
    wanted = deployment_config.get("num_replicas", floor)
    return wanted if isinstance(wanted, int) else 1


def _num_cpus(deployment_config: Mapping[str, Any]) -> float:
    """Return how many CPUs a replica's actor asks for itself: one, unless it says so."""
    wanted = (deployment_config.get("ray_actor_options") or {}).get("num_cpus")
    return float(wanted) if isinstance(wanted, int | float) else 1.0


def _num_gpus(deployment_config: Mapping[str, Any]) -> float:
    """Return how many GPUs a replica's actor asks for itself."""
    wanted = (deployment_config.get("ray_actor_options") or {}).get("num_gpus")
    return float(wanted) if isinstance(wanted, int | float) else 0.0


# -- chains -------------------------------------------------------------------------------------

IMAGES = "images"
"""What a chain allows if its model sees, and its clients may send images in messages."""

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""Names of variables of chat templates."""

OF_THE_RENDERER = frozenset(
    {
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
        *("raise_exception", "strftime_now", "namespace", "range", "conversation", "chat_template"),
        *("tokenize", "tokenizer_kwargs", "processor_kwargs", "padding", "truncation", "max_length"),
        *("return_tensors", "return_dict", "return_assistant_tokens_mask", "additional_special_tokens"),
    }
)
"""Names that a template is given, and options of who renders it: no variables of any template's own."""


class Route(Spec):
    """Choose by meaning: the choice whose examples lie nearest to the input, by an encoder."""

    engine: str
    choices: Annotated[dict[Identifier, Annotated[tuple[str, ...], Field(min_length=1)]], Field(min_length=2)]


def _leave_the_request_to_the_chain(value: dict[str, Any]) -> dict[str, Any]:
    for key in ("messages", "model", "stream", "stream_options"):
        if key in value:
            raise PydanticCustomError("reserved", "{key} is set by the chain, not here", {"key": key})
    return value


Sampling = Annotated[dict[str, Any], AfterValidator(_leave_the_request_to_the_chain)]
"""What a chat completion request says beside its messages: it goes to vLLM as it is."""


class Generate(Spec):
    """Generate text. The last step's caller may override ``sampling``."""

    engine: str
    prompt: str | None = None
    sampling: Sampling = {}

    @field_validator("prompt")
    @classmethod
    def _read_prompt_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        read: Callable[[str], str] | None = (info.context or {}).get("read")
        if value is None or read is None:
            return value
        try:
            text = read(value) if value.endswith(".j2") else value
        except ModelSetError as error:
            raise PydanticCustomError("unreadable", "{reason}", {"reason": error.reason}) from error
        fault = templates.too_long(text)  # before anybody parses it
        if fault is not None:
            raise _at((), f"bad template: line {fault.line}: {fault.reason}")
        return text


class Step(Spec):
    """One declared model call of a chain: exactly one of ``route`` and ``generate``."""

    id: Identifier
    route: Route | None = None
    generate: Generate | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.route is None) == (self.generate is None):
            raise PydanticCustomError("step_kind", "a step has exactly one of: route, generate")
        return self

    @property
    def call(self) -> Route | Generate:
        """The one of ``route`` and ``generate`` that is set."""
        call = self.route or self.generate
        assert call is not None  # noqa: S101 - _one_kind has made sure
        return call


class Sample(Spec):
    """A request of the kind that the chain gets; warm-up runs it on every replica."""

    messages: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    params: Sampling = {}
    """What clients send beside messages: ``response_format``, ``tools``, ``max_tokens`` and the like."""


class Chain(Spec):
    """What an OpenAI client names as ``model``: steps in order, the last of which answers."""

    deadline: Duration = 60.0
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    answer: str
    samples: Annotated[tuple[Sample, ...], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """What a step may generate at most if nobody says and the context has room for it."""
    degrade_to: str | None = None
    """Chain that answers instead for callers whose budget has no room for this one."""
    latency_budget: dict[str, TimeShare] = {}
    """Step to its share of the deadline. A hop that takes longer goes on, and is counted as an overrun."""
    allow: tuple[str, ...] = ()
    """Members of vLLM's API, or ``images``, that clients may send to its answering step besides OpenAI's."""
    template_variables: tuple[Annotated[str, Field(pattern=VARIABLE, max_length=64)], ...] = ()
    """What clients may set of the model's chat template (``chat_template_kwargs``), to one value each."""

    @model_validator(mode="after")
    def _steps_fit_together(self) -> Self:
        ids = [step.id for step in self.steps]
        for position, step_id in enumerate(ids):
            if step_id in ids[:position]:
                raise _at(("steps", position, "id"), f"{step_id!r} is the id of an earlier step")
        if self.answer not in ids:
            raise _at(("answer",), f"no step is called {self.answer!r}", nearest(self.answer, ids))
        if self.answer != ids[-1] or self.steps[-1].generate is None:
            raise _at(("answer",), "the answer is the last step, and that step must be a generate step")
        for position, step in enumerate(self.steps):
            self._check_prompt(position, step, frozenset(ids[:position]))
        return self

    @model_validator(mode="after")
    def _opens_what_there_is(self) -> Self:
        openable = [*OPENABLE, IMAGES]
        for position, name in enumerate(self.allow):
            if name not in openable:
                reason = f"{name!r} cannot be opened to clients; there is: {', '.join(openable)}"
                raise _at(("allow", position), reason, nearest(name, openable))
        for position, name in enumerate(self.template_variables):
            if name in OF_THE_RENDERER:
                raise _at(("template_variables", position), f"{name!r} steers what renders the template")
        return self

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        ids = [step.id for step in self.steps]
        for name in self.latency_budget:
            if name not in ids:
                raise _at(("latency_budget", name), f"no step is called {name!r}", nearest(name, ids))
        shared = round(sum(self.latency_budget.values()), 6)
        if shared > self.deadline:
            reason = f"the shares are {shared:g} s together, over the deadline of {self.deadline:g} s"
            raise _at(("latency_budget",), reason)
        return self

    @staticmethod
    def _check_prompt(position: int, step: Step, earlier: frozenset[str]) -> None:
        if step.generate is None or step.generate.prompt is None:
            return
        fault = templates.check(step.generate.prompt, earlier)
        if fault is not None:
            line = f"line {fault.line}: " if fault.line else ""
            raise _at(("steps", position, "generate", "prompt"), f"bad template: {line}{fault.reason}")

    @property
    def engines(self) -> frozenset[str]:
        """Names of the engines that the chain's steps call."""
        return frozenset(step.call.engine for step in self.steps)

    @property
    def latency_objective(self) -> float:
        """Seconds within which a request is answered in time.

        The sum of its latency budget, if that has a share for every step; its deadline otherwise.
        """
        complete = len(self.latency_budget) == len(self.steps)
        return round(sum(self.latency_budget.values()), 6) if complete else self.deadline


class Warmup(Spec):
    """What a release is warmed with besides its samples, and how long all of it may take."""

    at_once: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = (4,)
    """How many runs of each sample are under way together. Each size is run once."""
    prompt_tokens: tuple[Annotated[int, Field(ge=1, le=2**20)], ...] = ()
    """Lengths of prompts, in tokens, that every generating engine reads once."""
    timeout: Duration = 300.0


class ModelSet(Spec):
    """The unit that is swapped: engines, prompts, chains and limits, as one."""

    name: Name
    engines: Annotated[dict[Name, EngineSpec], Field(min_length=1)]
    chains: Annotated[dict[Name, Chain], Field(min_length=1)]
    warmup: Warmup = Warmup()
    rollback_window: Duration = 600.0
    strategy: Literal["beside", "sleep_live"] = "beside"
    cutover: Literal["automatic", "manual"] = "automatic"

    @model_validator(mode="after")
    def _pause_ends_by_itself(self) -> Self:
        if self.strategy == "sleep_live" and self.cutover == "manual":
            reason = "requests would wait until somebody promotes: sleep_live goes with an automatic cutover"
            raise _at(("cutover",), reason)
        return self

    @model_validator(mode="after")
    def _engines_exist(self) -> Self:
        for chain_name, chain in self.chains.items():
            for position, step in enumerate(chain.steps):
                name = step.call.engine
                kind = "route" if step.route is not None else "generate"
                key = ("chains", chain_name, "steps", position, kind, "engine")
                if name not in self.engines:
                    raise _at(key, f"no engine is called {name!r}", nearest(name, list(self.engines)))
                if self.engines[name].kind not in _ENGINES_OF_STEP[kind]:
                    raise _at(key, f"engine {name!r} of kind {self.engines[name].kind} cannot {kind}")
        return self

    @model_validator(mode="after")
    def _degraded_chains_exist(self) -> Self:
        for name, chain in self.chains.items():
            other = chain.degrade_to
            if other is not None and (other == name or other not in self.chains):
                reason = (
                    "a chain cannot stand in for itself" if other == name else f"no chain is called {other!r}"
                )
                raise _at(("chains", name, "degrade_to"), reason, nearest(other, [*self.chains]))
        return self

    @model_validator(mode="after")
    def _prompt_lengths_fit(self) -> Self:
        for position, tokens in enumerate(self.warmup.prompt_tokens):
            for name in self.generating:
                limit = self.engines[name].context_length
                if limit is not None and tokens >= limit:
                    holds = f"engine {name!r} holds {limit} tokens, one of which is the answer"
                    raise _at(("warmup", "prompt_tokens", position), f"{holds}; write less than {limit}")
        return self

    @property
    def prices(self) -> dict[str, Price]:
        """The prices of those engines that have one, by name."""
        return {name: spec.price.per_token for name, spec in self.engines.items() if spec.price is not None}

    @property
    def contexts(self) -> dict[str, int]:
        """The lengths of the contexts of those engines that declare one, in tokens, by name."""
        lengths = ((name, spec.context_length) for name, spec in self.engines.items())
        return {name: length for name, length in lengths if length is not None}

    @property
    def generating(self) -> tuple[str, ...]:
        """Names of the engines that generate steps call."""
        steps = (step for chain in self.chains.values() for step in chain.steps)
        return tuple(dict.fromkeys(step.call.engine for step in steps if step.generate is not None))


_ENGINES_OF_STEP = {"route": ("transformers", "fake"), "generate": ("vllm", "fake")}


# -- parsing ------------------------------------------------------------------------------------


def _at(
    key: tuple[str | int, ...], reason: str, suggestion: str | None = None, *, text: bool = False
) -> PydanticCustomError:
    """Return an error that a validator of a whole object raises about one key inside it."""
    context = {"reason": reason, "below": list(key), "nearest": suggestion, "text": text}
    return PydanticCustomError("at", "{reason}", context)


def parse(document: Any, source: str, read: Callable[[str], str]) -> ModelSet:
    """Return the model set that ``document`` (parsed YAML) declares.

    ``source`` is the file's path, for messages. ``read`` returns the text of a prompt file named
    relative to it.

    Raises:
        ModelSetError: with the file, the key's path, the reason and the nearest valid key.

    """
    read_in = document_of(document, source)
    model_set = parse_document(read_in, read)
    if read_in.problems:
        raise read_in.refusal(read_in.problems)
    return model_set


def parse_document(document: Document, read: Callable[[str], str]) -> ModelSet:
    """Return the model set that a document declares; what is wrong with the document as such is not told.

    Raises:
        ModelSetError: with the file, the line, the key's path, the reason and the nearest valid key, and
            with what else is wrong.

    """
    if not isinstance(document.value, Mapping):
        if document.problems:
            raise document.refusal(document.problems)
        raise ModelSetError(document.source, "", "a model set is a mapping with name, engines and chains")
    try:
        return ModelSet.model_validate(document.value, context={"read": read})
    except ValidationError as error:
        found = [_problem(detail, document.value) for detail in error.errors(include_url=False)]
        raise document.refusal([*document.problems, *found]) from error


def _problem(detail: ErrorDetails, document: Mapping[str, Any]) -> Problem:
    """Return what one of pydantic's errors says, with the key as it is in the document."""
    context = detail.get("ctx", {})
    path = _path_in(document, detail["loc"])
    if detail["type"] == "unknown_key":
        # It explains most others: what is missing, what has the wrong form.
        return Problem((*path, context["key"]), detail["msg"], context["nearest"], first=True)
    if detail["type"] == "union_tag_invalid":
        suggestion = nearest(str(context.get("tag")), _ENGINE_KINDS)
        return Problem((*path, "kind"), detail["msg"], suggestion)
    if detail["type"] == "union_tag_not_found":
        return Problem((*path, "kind"), f"is missing; it is one of: {', '.join(_ENGINE_KINDS)}")
    text = context.get("text", False) or detail["type"] == "string_type"
    return Problem((*path, *context.get("below", [])), detail["msg"], context.get("nearest"), text=text)


def _path_in(document: Any, location: Sequence[str | int]) -> tuple[str | int, ...]:
    """Return ``location`` without what pydantic adds and the file lacks: tags of unions, ``[key]``."""
    path: list[str | int] = []
    node = document
    for position, part in enumerate(location):
        last = position == len(location) - 1
        inside = (isinstance(node, Mapping) and part in node) or (
            isinstance(node, Sequence) and isinstance(part, int) and part < len(node)
        )
        if inside:
            path.append(part)
            node = node[part]
        elif last and isinstance(node, Mapping) and part not in (*_ENGINE_KINDS, "[key]"):
            path.append(part)
    return tuple(path)


__all__ = [
    "Chain",
    "EngineSpec",
    "FakeEngine",
    "Generate",
    "ModelSet",
    "PriceSpec",
    "Route",
    "Sample",
    "Spec",
    "Step",
    "TransformersEngine",
    "VllmEngine",
    "Warmup",
    "nearest",
    "parse",
    "parse_document",
]
