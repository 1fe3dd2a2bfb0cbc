"""`interlock validate` and `plan`: a file's mistakes are told with its lines, before a cluster is asked."""

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from runtime.cli import releases
from runtime.cli.client import AdminClient
from runtime.cli.main import app
from runtime.cli.model_set import read_inlined
from runtime.cli.serve_config import change_of
from runtime.cli.wait import ProgressLine
from runtime.core.model_set.digest import change_digest
from runtime.errors import CommandError, ModelSetError
from runtime.settings import Settings
from tests.unit.world import document


def serve_config(model_set):
    deployments = [{"name": "Gateway"}, {"name": "SwapManager", "user_config": {"model_set": model_set}}]
    return {"applications": [{"name": "interlock", "deployments": deployments}]}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# A valid set, or a Serve config that holds or names one, is told to be valid; nobody is asked.
def test_valid(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERLOCK_ROOT", str(tmp_path))
    named, inline, model_set = (tmp_path / name for name in ("named.yaml", "inline.yaml", "v1.yaml"))
    model_set.write_text(yaml.safe_dump(document(1)))
    named.write_text(yaml.safe_dump(serve_config("v1.yaml")))
    inline.write_text(yaml.safe_dump(serve_config(document(1))))
    done = run("validate", model_set, named, inline)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.count("model set support is valid: 2 engines, chains agent") == 3


# Mistakes are told with file, line and key, all of them, and the exit code is 2.
def test_invalid(tmp_path):
    (tmp_path / "v1.yaml").write_text(
        yaml.safe_dump({**document(1), "rolback_window": "1m", "zzz": 1}) + "name: b\n"
    )
    inline = yaml.safe_dump(serve_config({**document(1), "enginse": {}}), sort_keys=False)
    (tmp_path / "inline.yaml").write_text(inline)
    done = run("validate", tmp_path / "v1.yaml", tmp_path / "inline.yaml", tmp_path / "gone.yaml")
    assert done.exit_code == 2
    lines = done.stderr.splitlines()
    assert "rolback_window: unknown key" in lines[0]
    assert "did you mean 'rollback_window'?" in lines[0]
    assert "zzz: unknown key" in lines[1]
    assert "name: is written twice" in lines[2]
    line = next(n for n, text in enumerate(inline.splitlines(), 1) if "enginse" in text)
    assert lines[3].startswith(f"{tmp_path}/inline.yaml:{line}: enginse: unknown key")
    assert "cannot read" in lines[4]


# What only a review finds is told beside what the text has wrong as such.
def test_all_kinds_at_once(tmp_path):
    (tmp_path / "v1.yaml").write_text(yaml.safe_dump({**document(1), "rollback_window": "99d"}) + "name: b\n")
    told = run("validate", tmp_path / "v1.yaml").stderr
    assert "name: is written twice" in told
    assert "rollback_window: is longer than 30d" in told


# That weights are not here is a note: they are wanted on the cluster's nodes.
def test_weights_are_a_note(tmp_path):
    declared = document(1)
    declared["engines"]["router"] = {"kind": "transformers", "model": "./encoder"}
    (tmp_path / "v1.yaml").write_text(yaml.safe_dump(declared))
    done = run("validate", tmp_path / "v1.yaml")
    assert done.exit_code == 0
    assert done.stderr.startswith("note: ")


# What is no Serve config and no model set is told as such.
@pytest.mark.parametrize(
    "text", ["applications: []", "applications: {a: 1}", "applications: [1, {deployments: [2]}]"]
)
def test_no_config(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    assert "is no Serve config" in run("validate", tmp_path / "a.yaml").stderr


# The plan sends prompts as text, and folders beside the file as whole paths.
def test_what_the_plan_sends(tmp_path):
    declared = document(1)
    declared["engines"]["router"] = {"kind": "transformers", "model": "./encoder"}
    declared["chains"]["agent"]["steps"][1]["generate"]["prompt"] = "answer.j2"
    (tmp_path / "encoder").mkdir()
    (tmp_path / "answer.j2").write_text("as text")
    (tmp_path / "v1.yaml").write_text(yaml.safe_dump(declared))
    whole = read_inlined(tmp_path / "v1.yaml").value
    assert whole["engines"]["router"]["model"] == str(tmp_path / "encoder")
    assert whole["chains"]["agent"]["steps"][1]["generate"]["prompt"] == "as text"


# A mistake in the file is told by the plan without a gateway.
def test_plan_names_the_file(tmp_path):
    path = tmp_path / "v1.yaml"
    path.write_text(yaml.safe_dump({**document(1), "enginse": {}}))
    done = run("plan", path, "--address", "http://127.0.0.1:1")
    assert (done.exit_code, "v1.yaml:" in done.stderr, "enginse" in done.stderr) == (1, True, True)


# What the cluster alone can refuse has the line of its key or of what is around it; what is no key has none.
@pytest.mark.parametrize("serve", [False, True])
def test_plan_names_the_line(tmp_path, serve):
    path = tmp_path / "v1.yaml"
    path.write_text(yaml.safe_dump(serve_config(document(1)) if serve else document(1)))
    lines = path.read_text().splitlines()
    router, writer = (
        next(n for n, text in enumerate(lines, 1) if text.strip() == f"{engine}:")
        for engine in ("router", "writer")
    )
    message = (
        "user_config.model_set: engines.router: x: y\n"
        "user_config.model_set: engines.writer.gone[1]: z\n"
        "user_config.model_set: it holds: too much\n"
        "user_config.model_set: and 7 more"
    )
    told = {"error": {"message": message, "type": "t", "param": None, "code": "c"}}
    transport = httpx.MockTransport(lambda _: httpx.Response(400, json=told))
    with pytest.raises(CommandError) as refused:
        releases._planned(AdminClient(Settings(), "http://127.0.0.1:1", transport), path)
    assert str(refused.value).splitlines() == [
        f"{path}:{router}: engines.router: x: y",
        f"{path}:{writer}: engines.writer.gone[1]: z",
        f"{path}: it holds: too much",
        f"{path}: and 7 more",
    ]


# The change that `wait` waits for is the manager's; a key that is written twice in a Serve config is told.
def test_change_of_a_config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(serve_config("v1.yaml")))
    assert change_of(path) == change_digest({"model_set": "v1.yaml"})
    path.write_text(
        path.read_text().replace("model_set: v1.yaml", "model_set: v1.yaml\n      model_set: v2.yaml")
    )
    with pytest.raises(ModelSetError, match="model_set: is written twice"):
        change_of(path)


# In a log what is waited for is a line whenever it changes, and every ten seconds when it does not.
def test_progress_in_a_log(capsys):
    now = [0.0]
    with ProgressLine(lambda: now[0]) as progress:
        for seen in (
            "no gateway answers",
            "release 1 is loading; 2 of 2 engines to load",
            "release 1 is warming",
        ):
            for _ in range(40):
                progress.show(seen, f"{now[0]:.0f} s")
                now[0] += 0.5
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[0] == "no gateway answers (0 s)"
    assert lines[-1] == "release 1 is warming (50 s)"
