"""What the README files show and list is what there is."""

import re
import shlex

import pytest
import yaml
from typer.testing import CliRunner

from runtime.api.errors import _STATUS
from runtime.api.openapi import described
from runtime.cli.exits import HELD, INTERRUPTED
from runtime.cli.health import _EXITS
from runtime.cli.main import app
from runtime.cli.model_set import _INVALID
from runtime.core.model_set.review import reviewed
from runtime.core.requests.chat_body import ChatBody
from runtime.core.requests.gate import _INSTEAD, IGNORED
from runtime.core.requests.sampling import OPENABLE
from runtime.core.walk.chain import IMAGES
from runtime.errors import ModelSetError
from runtime.sets.yaml_text import read_yaml
from tests.pages import CLIENTS, DEPLOYING, MODELS, OPERATORS, PAGES, ROOT, blocks, rows
from tests.unit.observe.test_metrics import client_of, live

LONGEST_DOOR = 150
"""Lines: who comes in reads all of it."""


def model_set(text, source="models/README.md"):
    return reviewed(read_yaml(text, source), lambda name: name)


MODEL_SET = next(block for block in blocks(MODELS, "yaml") if "chains:" in block)


# The README is short enough to be read.
def test_readme_is_a_door():
    assert len(PAGES["README.md"].splitlines()) <= LONGEST_DOOR


# Every README of the repository is among the pages that are held against the code.
def test_pages_are_all_there_are():
    tops = ("models", "serve_configs", "runtime", "tests", "benchmarks")
    there = {path.relative_to(ROOT).as_posix() for top in tops for path in (ROOT / top).rglob("README.md")}
    assert there | {"README.md", ".github/CONTRIBUTING.md"} == set(PAGES)


# The model set that is shown is a valid one.
def test_model_set_of_the_readme_parses():
    assert model_set(MODEL_SET).name == "support"


# On GPUs that hold the set that is shown there is room for the next one.
def test_model_set_of_the_readme_leaves_room():
    writer = model_set(MODEL_SET).engines["writer"]
    assert 2 * writer.gpus <= 1


# The mistake that is shown is refused with the words that are shown.
def test_refusal_of_the_readme():
    begin, end = blocks(MODELS, "text")[0].strip().split(" ... ")
    with pytest.raises(ModelSetError) as refused:
        model_set(MODEL_SET.replace("engine_kwargs:", "engine_kwarg:"), "models/support/v2.yaml")
    assert str(refused.value).startswith(begin)
    assert str(refused.value).endswith(end)


# The Serve config that is shown differs from the one in serve_configs only in size and address.
def test_serve_config_of_the_readme_is_the_shipped_one():
    configs = map(yaml.safe_load, blocks(DEPLOYING, "yaml"))
    shown = next(d for d in configs if "applications" in d)["applications"][0]
    shipped = yaml.safe_load((ROOT / "serve_configs/support-v2.yaml").read_text())["applications"][0]
    assert shown["import_path"] == shipped["import_path"]
    assert shown["deployments"][1] == shipped["deployments"][1]


# The Serve config in the RayService that is shown is the shipped one with other sizes; all nodes have one
# environment, and the settings in it exist.
def test_ray_service_of_the_readme():
    shown = next(d for d in map(yaml.safe_load, blocks(DEPLOYING, "yaml")) if d.get("kind") == "RayService")
    config = yaml.safe_load(shown["spec"]["serveConfigV2"])
    shipped = yaml.safe_load((ROOT / "serve_configs/support-v1.yaml").read_text())
    (application,), (like,) = config["applications"], shipped["applications"]
    assert {**application, "deployments": []} == {**like, "deployments": []}
    assert application["deployments"][1] == like["deployments"][1]
    cluster = shown["spec"]["rayClusterConfig"]
    head, worker = (
        group["template"]["spec"]["containers"][0]["env"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    )
    assert head == worker
    assert {variable["name"] for variable in head if variable["name"].startswith("INTERLOCK_")} <= settings()


# Prometheus, set up as the page says, may read `/metrics`.
async def test_scrape_config_of_the_readme():
    configs = map(yaml.safe_load, blocks(DEPLOYING, "yaml"))
    shown = next(d for d in configs if "scrape_configs" in d)["scrape_configs"][0]
    key = shown["authorization"]["credentials"]
    async with live(gateways=1) as world, client_of(world, host="10.1.2.3", admin_key=key) as client:
        answer = await client.get("/metrics", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200


def named_commands(page):
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split("&&")]
    return [command for part in parts if (command := shlex.split(part, comments=True))]


# Every `make` verb, `interlock` command, option and file that the shell lines of a page name exists.
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_the_readme_exist(page):
    verbs = set(re.findall(r"^([a-z0-9.-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    groups = {group.name for group in app.registered_groups}
    for command in named_commands(PAGES[page]):
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


# The pages for trying, deploying and operating show commands; the README the two to try it with.
def test_pages_show_commands():
    for name in ("README.md", "serve_configs/README.md", "runtime/cli/README.md"):
        assert len(named_commands(PAGES[name])) > 5, name
    assert named_commands(PAGES["README.md"])[:2] == [["make", "demo"], ["make", "test"]]


# The operators' page lists every command, and no other.
def test_commands_are_listed():
    single = {command.name or command.callback.__name__ for command in app.registered_commands}
    grouped = {
        f"{group.name} {command.name or command.callback.__name__}"
        for group in app.registered_groups
        for command in group.typer_instance.registered_commands
    }
    listed = {name for row in rows(OPERATORS, "Commands") for name in re.findall("`interlock (.+?)`", row[0])}
    assert listed == single | grouped


# The operators' page lists every exit code that a command gives.
def test_exit_codes_are_listed():
    listed = {int(row[0]) for row in rows(OPERATORS, "Exit codes") if row[0].isdecimal()}
    assert listed == {1, 2, HELD, INTERRUPTED, _INVALID, *_EXITS.values()}


# The clients' page lists every endpoint, and no other.
async def test_endpoints_are_listed():
    async with live(gateways=1) as world, client_of(world) as client:
        paths = described(client._transport.app)["paths"]
    there = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    listed = {row[0].strip("`") for row in rows(CLIENTS, "Endpoints") if row[0].startswith("`")}
    assert listed == there | {"GET /openapi.json"}


# The clients' page lists every status that an error of Interlock's gets, and no other.
def test_statuses_are_listed():
    listed = {int(row[0]) for row in rows(CLIENTS, "Errors") if row[0].isdecimal()}
    assert listed == {status for _, status, _ in _STATUS}


# The clients' page lists every member of a request: what is taken, opened, ignored and refused.
def test_members_are_listed():
    members = rows(CLIENTS, "What a request may say")[1:6]
    taken, opened, variables, ignored, refused = (re.findall("`(.+?)`", row[1]) for row in members)
    assert set(taken) | set(variables) == set(ChatBody.__annotations__) - set(OPENABLE)
    assert opened == [*OPENABLE, IMAGES]
    assert set(ignored) == IGNORED
    assert set(refused) == set(_INSTEAD)


def settings():
    from runtime.settings import Settings

    return {f"INTERLOCK_{name.upper()}" for name in Settings.model_fields}


# Every setting is listed, and what is listed is one.
def test_settings_of_the_readme_exist():
    listed = [
        name for row in rows(DEPLOYING, "Settings") for name in re.findall(r"`(INTERLOCK_\w+)`", row[0])
    ]
    assert len(listed) == len(set(listed))
    assert set(listed) == settings()


# Every setting that any page names is one.
@pytest.mark.parametrize("page", PAGES)
def test_named_settings_exist(page):
    assert set(re.findall(r"INTERLOCK_[A-Z_]*[A-Z]", PAGES[page])) <= settings()


def anchor(heading):
    """What a heading is linked to by."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# Every link from a page into the repository leads to a file, and its anchor to a heading there.
@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, heading = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), flags=re.MULTILINE)
            assert heading in map(anchor, headings), link
