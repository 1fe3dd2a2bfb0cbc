"""Engines that share a GPU: vLLM is told of it, and the plan counts on as much memory as vLLM takes."""

import pytest

from runtime.core.model_set.digest import Content
from runtime.core.model_set.llm_config import llm_config_fields
from runtime.core.model_set.memory import footprint
from runtime.core.model_set.model_set import parse
from tests.unit.core.test_specs import changed
from tests.unit.core.test_specs import refusal as refused
from tests.unit.world import document

GIB = 2**30
SHARED = {"bundles": [{"GPU": 0.45, "CPU": 1}]}
KV = {"kv_cache_memory_bytes": GIB}


def vllm(**config):
    """A vLLM engine with ``config`` in its ``llm_config``."""
    return {"kind": "vllm", "llm_config": {"model_loading_config": {"model_id": "m"}, **config}}


def content(version=1, encoder_gpus=0, writer=None, **config):
    """A set of an encoder and a writer on vLLM, which ``version`` tells from others."""
    declared = document(version)
    options = {"ray_actor_options": {"num_gpus": encoder_gpus}}
    declared["engines"]["router"] = {"kind": "transformers", "model": "e", "deployment_config": options}
    config = {"engine_kwargs": {**KV, "seed": version}, **config}
    declared["engines"]["writer"] = writer or vllm(**config)
    return Content.of(parse(declared, "set.yaml", lambda name: name), {})


def spec(**config):
    return content(engine_kwargs={}, **config).model_set.engines["writer"]


# A shard's share of a GPU, and how many GPUs a replica holds, are what the placement group says.
@pytest.mark.parametrize(
    ("config", "share", "held"),
    [
        ({}, None, 1),
        ({"engine_kwargs": {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}}, None, 4),
        ({"placement_group_config": SHARED}, 0.45, 0.45),
        ({"placement_group_config": {"bundle_per_worker": {"GPU": 0.25}}}, 0.25, 0.25),
        (
            {
                "placement_group_config": {"bundle_per_worker": {"GPU": 0.25}},
                "engine_kwargs": {"tensor_parallel_size": 2},
            },
            0.25,
            0.5,
        ),
        ({"placement_group_config": {"bundles": [{"CPU": 1}, {"GPU": 0.5}, {"GPU": 0.25}]}}, 0.5, 0.75),
        ({"placement_group_config": {"bundles": [{"GPU": 1}, {"GPU": 1}]}}, None, 2),
        ({"placement_group_config": {"bundles": [{"GPU": 2}]}}, None, 2),
        ({"placement_group_config": {"bundles": [{"CPU": 4}]}}, None, 0),
        ({"deployment_config": {"ray_actor_options": {"num_gpus": 0.5}}}, None, 1.5),
        ({"accelerator_config": {"kind": "cpu"}}, None, 0),
        ({"accelerator_config": {"kind": "cpu"}, "placement_group_config": SHARED}, None, 0),
    ],
)
def test_share(config, share, held):
    declared = content(**config).model_set.engines["writer"]
    assert (declared.gpu_share, declared.gpus) == (share, held)


# A placement group that nobody could be placed by is refused where it stands, with one that can be.
@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"bundles": {"GPU": 0.45}}, "bundles"),
        ({"bundles": [{"GPU": "half"}]}, "bundles[0].GPU"),
        ({"bundles": [{"GPU": -1}]}, "bundles[0].GPU"),
        ({"bundle_per_worker": 0.45}, "bundle_per_worker"),
        ({"bundle_per_worker": {"GPU": 1}, "bundles": []}, None),
        ({"strategy": "PACK"}, None),
        ({}, None),
    ],
)
def test_impossible_placement(config, key):
    error = refused(changed(("engines", "writer"), vllm(placement_group_config=config)))
    assert error.key == ".".join(filter(None, ["engines.writer.llm_config.placement_group_config", key]))
    assert "write: placement_group_config: {bundles: [{GPU: 0.45, CPU: 1}]}" in str(error)


# vLLM's workers ask for their share of the GPU, and it starts where its share is free.
def test_share_is_told_to_vllm():
    fields = llm_config_fields(spec(placement_group_config=SHARED), None, {})
    assert fields["runtime_env"] == {"env_vars": {"VLLM_RAY_PER_WORKER_GPUS": "0.45"}}
    assert fields["engine_kwargs"]["gpu_memory_utilization"] == 0.45
    assert fields["placement_group_config"] == SHARED


# An engine that has its GPUs for itself is told nothing of shares.
def test_whole_gpu_is_left_to_vllm():
    fields = llm_config_fields(spec(), None, {"env_vars": {"TOKEN": "t"}})
    assert "runtime_env" not in fields
    assert "gpu_memory_utilization" not in fields["engine_kwargs"]


# What the set says itself wins, and the set stays as it was.
def test_what_the_set_says_wins():
    own = {"env_vars": {"VLLM_RAY_PER_WORKER_GPUS": "0.3", "A": "1"}, "pip": ["x"]}
    declared = content(
        placement_group_config=SHARED,
        runtime_env=own,
        engine_kwargs={"gpu_memory_utilization": 0.4, "enable_prompt_tokens_details": False},
        deployment_config={"num_replicas": 2, "max_constructor_retry_count": 3},
        experimental_configs={"stream_batching_interval_ms": 9},
    ).model_set.engines["writer"]
    before = declared.model_dump_json()
    fields = llm_config_fields(declared, "/models/m", {"env_vars": {"TOKEN": "t"}})
    assert fields["runtime_env"] == own
    assert fields["engine_kwargs"] == {"gpu_memory_utilization": 0.4, "enable_prompt_tokens_details": False}
    assert fields["deployment_config"] == {"num_replicas": 2, "max_constructor_retry_count": 3}
    assert fields["experimental_configs"] == {"stream_batching_interval_ms": 9}
    assert fields["model_loading_config"] == {"model_id": "m", "model_source": "/models/m"}
    fields["runtime_env"]["env_vars"]["B"] = "2"
    fields["engine_kwargs"]["seed"] = 1
    assert declared.model_dump_json() == before


# The share takes no variable from the replica that it would have had otherwise.
@pytest.mark.parametrize(
    ("own", "of_actor", "kept"),
    [
        (None, None, {"TOKEN": "inherited"}),
        ({"pip": ["x"]}, None, {"TOKEN": "inherited"}),
        (None, {"env_vars": {"TOKEN": "actor's"}}, {"TOKEN": "actor's"}),
        ({"env_vars": {"TOKEN": "own"}}, {"env_vars": {"TOKEN": "actor's"}}, {"TOKEN": "own"}),
    ],
)
def test_variables_are_kept(own, of_actor, kept):
    options = {"ray_actor_options": {"runtime_env": of_actor}} if of_actor else {}
    declared = spec(
        placement_group_config=SHARED, deployment_config=options, **({"runtime_env": own} if own else {})
    )
    fields = llm_config_fields(declared, None, {"env_vars": {"TOKEN": "inherited"}})
    assert fields["runtime_env"]["env_vars"] == {"VLLM_RAY_PER_WORKER_GPUS": "0.45", **kept}


# The plan counts on as much memory as vLLM is told to take.
@pytest.mark.parametrize(
    ("kwargs", "share"), [({}, 0.45), ({"gpu_memory_utilization": 0.3}, 0.3), (KV, None)]
)
def test_memory_of_a_share(kwargs, share):
    declared = content(placement_group_config=SHARED, engine_kwargs=kwargs).model_set.engines["writer"]
    planned = footprint(declared, 4 * GIB, 80 * GIB)
    told = llm_config_fields(declared, None, {})["engine_kwargs"]["gpu_memory_utilization"]
    assert planned.kv_cache == GIB if share is None else planned.total == round(told * 80 * GIB)
    assert told == (share or 0.45)
