"""The engines of a model set: the settings of each kind, and what a replica of it takes of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from runtime.core.declaration.spec import Spec, at
from runtime.core.declaration.units import Duration, Size
from runtime.core.metering.cost import Price, TokenPrice

PLACEMENT_EXAMPLE = "placement_group_config: {bundles: [{GPU: 0.45, CPU: 1}]}"
"""How a set declares that an engine takes a share of a GPU."""

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
    engine_kwargs: dict[str, Any] = Field(default_factory=dict)
    accelerator_type: str | None = None
    accelerator_config: dict[str, Any] | None = None
    placement_group_config: dict[str, Any] | None = None
    lora_config: dict[str, Any] | None = None
    deployment_config: dict[str, Any] = Field(default_factory=dict)
    runtime_env: dict[str, Any] | None = None
    experimental_configs: dict[str, Any] = Field(default_factory=dict)
    log_engine_metrics: bool = True

    @field_validator("model_loading_config")
    @classmethod
    def _names_a_model(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "model_id" not in value:
            raise PydanticCustomError("missing_model_id", "model_id is missing: the model's name")
        if not isinstance(value["model_id"], str):
            raise at(("model_id",), "the model's name is text", text=True)
        return value

    @field_validator("placement_group_config")
    @classmethod
    def _check_placement(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            placement = _Placement.model_validate(value or {})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise at(first["loc"], f"{first['msg']}; write: {PLACEMENT_EXAMPLE}") from error
        if value is not None and (placement.bundles is None) == (placement.bundle_per_worker is None):
            raise at((), f"it has either bundles or bundle_per_worker; write: {PLACEMENT_EXAMPLE}")
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


class VllmEngineSpec(Spec):
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
        """How many tokens a prompt and its answer may have together, where the set declares it."""
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


class TransformersEngineSpec(Spec):
    """An encoder run by ``transformers`` in the replica's own process."""

    kind: Literal["transformers"]
    model: str
    revision: str | None = None
    """The commit of a model that comes from a hub."""
    task: Literal["embed"] = "embed"
    max_length: Annotated[int, Field(ge=1)] = 256
    deployment_config: dict[str, Any] = Field(default_factory=dict)
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


class FakeEngineSpec(Spec):
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
    deployment_config: dict[str, Any] = Field(default_factory=dict)
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
        """How many CPUs Ray keeps for each replica; none unless the set declares some."""
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


EngineSpec = Annotated[VllmEngineSpec | TransformersEngineSpec | FakeEngineSpec, Field(discriminator="kind")]
ENGINE_KINDS = ("vllm", "transformers", "fake")


def _replicas(deployment_config: Mapping[str, Any]) -> int:
    """Return how many replicas there are from the start: all of them are warmed before any request."""
    scaling = deployment_config.get("autoscaling_config") or {}
    floor = scaling.get("initial_replicas") or scaling.get("min_replicas") or 1
    wanted = deployment_config.get("num_replicas", floor)
    return wanted if isinstance(wanted, int) else 1


def _num_cpus(deployment_config: Mapping[str, Any]) -> float:
    """Return how many CPUs a replica's actor asks for itself: one by default."""
    wanted = (deployment_config.get("ray_actor_options") or {}).get("num_cpus")
    return float(wanted) if isinstance(wanted, int | float) else 1.0


def _num_gpus(deployment_config: Mapping[str, Any]) -> float:
    """Return how many GPUs a replica's actor asks for itself."""
    wanted = (deployment_config.get("ray_actor_options") or {}).get("num_gpus")
    return float(wanted) if isinstance(wanted, int | float) else 0.0
