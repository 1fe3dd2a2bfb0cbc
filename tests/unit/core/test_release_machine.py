"""Whatever happens, in whatever order: the model of ``tests.unit.machine``, driven by Hypothesis."""

import pytest
from hypothesis import settings

from tests.unit.machine import Interlock

pytestmark = pytest.mark.simulation

TestInterlock = Interlock.TestCase
TestInterlock.settings = settings(max_examples=120, stateful_step_count=20)
