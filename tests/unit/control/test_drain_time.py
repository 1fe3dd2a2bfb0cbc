"""Who stops waits for its answers, and a set whose answers may take longer is refused."""

import pytest
from pydantic import TypeAdapter

from benchmarks.parts.peers import Interlock, interlock_script
from benchmarks.parts.script import Script
from runtime.core.model_set.drain_time import (
    TIMEOUT,
    check_deadlines,
    engine_drain,
    gateway_timeout,
    with_drain_timeout,
)
from runtime.core.model_set.engines import EngineSpec
from runtime.core.model_set.model_set import parse
from runtime.core.walk.chain import Chain
from runtime.errors import ModelSetError
from runtime.sets.reader import read_content
from runtime.settings import Settings
from tests.unit.world import document

MODEL = {"model_loading_config": {"model_id": "m"}}


def with_deadline(seconds, **writer):
    declared = document(1, writer=writer)
    declared["chains"]["agent"]["deadline"] = f"{seconds}s"
    return parse(declared, "set.yaml", str)


# A chain's deadline may be as long as a gateway waits; a longer one is refused by the chain's name.
def test_a_deadline_longer_than_the_drain():
    check_deadlines(with_deadline(75), "set.yaml", 75.0)
    with pytest.raises(ModelSetError) as refused:
        check_deadlines(with_deadline(76), "set.yaml", 75.0)
    assert (refused.value.source, refused.value.key) == ("set.yaml", "chains.agent.deadline")
    assert "INTERLOCK_DRAIN_TIMEOUT_S" in str(refused.value)


# An engine that says itself how long Serve waits for it must say enough for the chains that use it.
def test_an_engine_that_would_be_killed():
    check_deadlines(with_deadline(60, deployment_config={TIMEOUT: 75}), "set.yaml", 75.0)
    with pytest.raises(ModelSetError) as refused:
        check_deadlines(with_deadline(60, deployment_config={TIMEOUT: 20}), "set.yaml", 75.0)
    assert refused.value.key == f"engines.writer.deployment_config.{TIMEOUT}"
    assert "at least 75" in str(refused.value)


# Unless the set says otherwise, an engine of every kind is given the installation's time.
@pytest.mark.parametrize("kind", ["fake", "transformers", "vllm"])
def test_engines_are_given_the_time(kind):
    def deployed(**config):
        declared = {
            "fake": {"kind": "fake", "deployment_config": config},
            "transformers": {"kind": "transformers", "model": "m", "deployment_config": config},
            "vllm": {"kind": "vllm", "llm_config": {**MODEL, "deployment_config": config}},
        }[kind]
        spec = with_drain_timeout(TypeAdapter(EngineSpec).validate_python(declared), 200.0)
        return spec.llm_config.deployment_config if kind == "vllm" else spec.deployment_config

    assert engine_drain(deployed()[TIMEOUT]) == 200.0
    assert deployed(num_replicas=2)["num_replicas"] == 2
    assert deployed(**{TIMEOUT: 3})[TIMEOUT] == 3


# By default everybody who stops waits longer than a chain that says nothing may take.
def test_the_default_is_enough():
    drain = Settings().drain_timeout_s
    assert drain > Chain.model_fields["deadline"].default
    assert gateway_timeout(drain) > drain


# The sets that benchmarks deploy, with the settings as they come, are among those that are taken.
def test_sets_of_benchmarks(tmp_path):
    script = interlock_script(Script(0.1, 0.05), 64)
    path = Interlock("interlock", script, {})._application_in(tmp_path)["deployments"][1]["user_config"][
        "model_set"
    ]
    source, content = read_content(path, tmp_path, tmp_path)
    check_deadlines(content.model_set, source, Settings().drain_timeout_s)
