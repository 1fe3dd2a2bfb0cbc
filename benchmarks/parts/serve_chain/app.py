"""``build`` is what ``import_path`` of a Serve config names; an update is another model set in ``args``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.llm import LLMConfig, build_llm_deployment

from benchmarks.parts.serve_chain.ingress import Ingress
from benchmarks.parts.serve_chain.router import Router
from benchmarks.parts.serve_chain.writer import Writer
from runtime.core.model_set.engines import TransformersEngineSpec, VllmEngineSpec
from runtime.sets.reader import read_content
from runtime.settings import Settings

_CAREFUL: dict[str, Any] = {"max_surge_percent": 100, "graceful_shutdown_timeout_s": 120}
"""The replacement of a replica is ready before it stops, and it stops when its streams have ended."""

_LIGHT: dict[str, Any] = {"max_ongoing_requests": 256, "ray_actor_options": {"num_cpus": 0}}


def build(args: dict[str, Any]) -> Application:
    """Return router, writer and ingress of a model set with a chain of two steps: a route, then an answer.

    ``args`` are ``model_set`` (its path), ``version`` (the number that replicas know themselves by), and
    ``careful``: whether replicas are replaced carefully, or as Serve does it unless told otherwise.
    """
    version, options = int(args["version"]), _CAREFUL if args["careful"] else {}
    _, content = read_content(args["model_set"], Path(), Settings().models_dir)
    (chain,) = content.model_set.chains.values()
    route, generate = chain.steps[0].route, chain.steps[1].generate
    assert route is not None  # noqa: S101 - by the form of the chain
    assert generate is not None  # noqa: S101
    encoder, model = content.model_set.engines[route.engine], content.model_set.engines[generate.engine]
    assert isinstance(encoder, TransformersEngineSpec)  # noqa: S101 - by the form of the chain
    assert isinstance(model, VllmEngineSpec)  # noqa: S101
    router = serve.deployment(Router, name="Router", **_LIGHT, **options).bind(
        encoder, content.weights[route.engine].location, route.choices, version
    )
    writer = _writer(model, content.weights[generate.engine].location, version, options)
    ingress = serve.deployment(Ingress, name="Ingress", **_LIGHT, **options)
    steps = (chain.steps[0].id, chain.steps[1].id)
    return ingress.bind(router, writer, steps, generate.prompt, generate.sampling, version)


def _writer(model: VllmEngineSpec, location: str, version: int, options: dict[str, Any]) -> Application:
    fields = model.llm_config.model_dump(exclude_none=True)
    fields["model_loading_config"] = {**fields["model_loading_config"], "model_source": location}
    fields["deployment_config"] = {"num_replicas": 1, **fields["deployment_config"], **options}
    # The first token at once: as it comes, it would be held for 50 ms to fill a batch.
    fields["experimental_configs"] = {"stream_batching_interval_ms": 0, **fields["experimental_configs"]}
    config = LLMConfig(**fields, server_cls=Writer)
    return build_llm_deployment(config, bind_kwargs={"version": version})
