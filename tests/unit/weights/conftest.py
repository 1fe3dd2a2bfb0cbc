"""Fixtures: a wheel, and an empty place for models."""

from __future__ import annotations

import pytest

from tests.unit.weights.tiny import make_wheel


@pytest.fixture
def wheel(tmp_path):
    return make_wheel(tmp_path / "index")


@pytest.fixture
def models_dir(tmp_path):
    return tmp_path / "models"
