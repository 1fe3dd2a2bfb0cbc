"""models/README.md lists the keys of a model set: all of them, no others, and with their defaults."""

import re
from pathlib import Path
from typing import Annotated, get_args

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from runtime.core.declaration.spec import Spec
from runtime.core.model_set.engines import (
    FakeEngineSpec,
    LLMConfigSpec,
    Memory,
    PriceSpec,
    TransformersEngineSpec,
    VllmEngineSpec,
)
from runtime.core.model_set.model_set import ModelSet, Warmup
from runtime.core.walk.chain import Chain, Sample, Step
from runtime.core.walk.steps.generate import Generate
from runtime.core.walk.steps.route import Route

PAGE = (Path(__file__).resolve().parents[3] / "models" / "README.md").read_text()

SECTIONS = {
    "Top level": ModelSet,
    "vllm engine": VllmEngineSpec,
    "llm_config": LLMConfigSpec,
    "transformers engine": TransformersEngineSpec,
    "fake engine": FakeEngineSpec,
    "memory": Memory,
    "price": PriceSpec,
    "Chains": Chain,
    "Steps": Step,
    "route": Route,
    "generate": Generate,
    "Samples": Sample,
    "Warm-up": Warmup,
}


def documented(section):
    """The rows of a section's table: key to what its last column says."""
    text = re.search(rf"^### {section}\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)[1]
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \|$", text, flags=re.MULTILINE)
    assert len(dict(rows)) == len(rows) == text.count("\n| `")
    return dict(rows)


def default_of(field, told):
    """What a told default comes to once the field has read it, as the file would say it."""
    if told == "none":
        return None
    annotation = field.annotation
    for part in field.metadata:
        annotation = Annotated[annotation, part]
    return TypeAdapter(annotation).validate_python(yaml.safe_load(told.strip("`")))


def specs_in(annotation):
    """The specs that an annotation names, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from specs_in(part)


def reachable(spec):
    found = {spec}
    for field in spec.model_fields.values():
        for below in specs_in(field.annotation):
            found |= reachable(below)
    return found


# Every part of a model set has its table.
def test_every_part_of_a_model_set_has_a_table():
    assert reachable(ModelSet) == set(SECTIONS.values())
    assert all(issubclass(spec, Spec) for spec in SECTIONS.values())


# A table has the keys that its part has, in the same order, and no others.
@pytest.mark.parametrize("section", SECTIONS)
def test_keys_are_those_of_the_spec(section):
    assert list(documented(section)) == list(SECTIONS[section].model_fields)


# The default that a table tells is the one that a set without the key gets.
@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_are_those_of_the_spec(section):
    told = documented(section)
    for name, field in SECTIONS[section].model_fields.items():
        if field.is_required():
            assert told[name] == "required", name
        else:
            assert default_of(field, told[name]) == field.get_default(call_default_factory=True), name
