"""Settings that cannot be meant are refused at the start by their names, and nothing of them is shown."""

import pickle

import pytest

from runtime.errors import SettingsError
from runtime.settings import Settings


# An admin key that no header can carry is refused by name, and is not printed.
@pytest.mark.parametrize("key", ["", "hunter2\n", "hunter2 ", "hünter2", "hunter\x7f2", "hunter2" * 100])
@pytest.mark.parametrize("way", ["environment", "args"])
def test_admin_key(monkeypatch, key, way):
    if way == "environment":
        monkeypatch.setenv("INTERLOCK_ADMIN_KEY", key)
    with pytest.raises(SettingsError, match="INTERLOCK_ADMIN_KEY") as refused:
        Settings(**({"admin_key": key} if way == "args" else {}))
    told = f"{refused.value} {refused.value!r} {refused.value.__cause__!r}"
    assert not key or key.strip() not in told
    assert refused.value.__suppress_context__


# A setting that is none, or out of its range, is named, with what there is or what is allowed.
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"hearbeat_s": 1}, "hearbeat_s is no setting; there is: "),
        ({"heartbeat_s": 0}, "INTERLOCK_HEARTBEAT_S"),
        ({"heartbeat_s": float("nan")}, "INTERLOCK_HEARTBEAT_S"),
        ({"gateway_silence_s": float("inf")}, "INTERLOCK_GATEWAY_SILENCE_S"),
        ({"max_body_bytes": 0}, "INTERLOCK_MAX_BODY_BYTES"),
        ({"max_body_bytes": 10**30}, "INTERLOCK_MAX_BODY_BYTES"),
        ({"cors_origins": "javascript:alert(1)"}, "INTERLOCK_CORS_ORIGINS"),
        ({"cors_origins": ["https://a.example/path"]}, "INTERLOCK_CORS_ORIGINS"),
        ({"cors_origins": 7}, "INTERLOCK_CORS_ORIGINS"),
    ],
)
def test_wrong_settings(given, told):
    with pytest.raises(SettingsError, match=told):
        Settings(**given)


# Origins come as a list or with commas, as browsers write them; settings go to other processes as they are.
def test_origins(monkeypatch):
    assert Settings().cors_origins == ()
    monkeypatch.setenv("INTERLOCK_CORS_ORIGINS", "https://App.example, http://localhost:3000/")
    assert Settings().cors_origins == ("https://app.example", "http://localhost:3000")
    settings = Settings(cors_origins=["*"], admin_key="key")
    assert pickle.loads(pickle.dumps(settings)) == settings


# `~` is a home folder wherever a folder is set; a home that nobody has is told.
def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INTERLOCK_MODELS_DIR", "~/models")
    assert Settings(root="~/sets").models_dir == tmp_path / "models"
    assert Settings(root="~/sets").root == tmp_path / "sets"
    with pytest.raises(SettingsError, match="INTERLOCK_ROOT"):
        Settings(root="~nobody-here/sets")
