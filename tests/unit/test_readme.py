import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from runtime.cli.main import app
from runtime.core.model_set.review import reviewed
from runtime.errors import ModelSetError
from runtime.sets.yaml_text import read_yaml
from tests.unit.observe.test_metrics import client_of, live

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def model_set(text, source="README.md"):
    return reviewed(read_yaml(text, source), lambda name: name)


MODEL_SET = next(block for block in blocks("yaml") if "chains:" in block)


# The README's model set is a valid one.
def test_model_set_of_the_readme_parses():
    assert model_set(MODEL_SET).name == "support"


# On GPUs that hold the README's set there is room for the next one.
def test_model_set_of_the_readme_leaves_room():
    writer = model_set(MODEL_SET).engines["writer"]
    assert 2 * writer.gpus <= 1


# The mistake that the README shows is refused with the words that it shows.
def test_refusal_of_the_readme():
    begin, end = blocks("text")[0].strip().split(" ... ")
    with pytest.raises(ModelSetError) as refused:
        model_set(MODEL_SET.replace("engine_kwargs:", "engine_kwarg:"), "models/support/v2.yaml")
    assert str(refused.value).startswith(begin)
    assert str(refused.value).endswith(end)


# The README's Serve config differs from the one in serve_configs only in size and address.
def test_serve_config_of_the_readme_is_the_shipped_one():
    shown = next(d for d in map(yaml.safe_load, blocks("yaml")) if "applications" in d)["applications"][0]
    shipped = yaml.safe_load((ROOT / "serve_configs/support-v2.yaml").read_text())["applications"][0]
    assert shown["import_path"] == shipped["import_path"]
    assert shown["deployments"][1] == shipped["deployments"][1]


# Prometheus, set up as the README says, may read `/metrics`.
async def test_scrape_config_of_the_readme():
    shown = next(d for d in map(yaml.safe_load, blocks("yaml")) if "scrape_configs" in d)["scrape_configs"][0]
    key = shown["authorization"]["credentials"]
    async with live(gateways=1) as world, client_of(world, host="10.1.2.3", admin_key=key) as client:
        answer = await client.get("/metrics", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200


# Every `make` verb, `interlock` command, option and file that the README's shell lines name exists.
def test_commands_of_the_readme_exist():
    verbs = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    lines = [part for block in blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    commands = [shlex.split(line, comments=True) for line in lines]
    groups = {group.name for group in app.registered_groups}
    assert len(commands) > 5
    for command in filter(None, commands):
        for word in command:
            assert not word.startswith(("serve_configs/", "models/")) or (ROOT / word).is_file()
        if command[0] == "make":
            assert command[1] in verbs
        if command[0] == "interlock":
            words = command[1 : 3 if command[1] in groups else 2]
            shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
            assert shown.exit_code == 0
            for option in (word for word in command if word.startswith("--")):
                assert option in shown.output


# Every setting that the README lists is one, and none is missing.
def test_settings_of_the_readme_exist():
    from runtime.settings import Settings

    listed = set(re.findall(r"`INTERLOCK_([A-Z_]+)`", README))
    known = {name.upper() for name in Settings.model_fields}
    assert listed == known
