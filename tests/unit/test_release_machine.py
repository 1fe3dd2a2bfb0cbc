"""Whatever happens, in whatever order: the model of ``tests.unit.machine``, driven by Hypothesis."""

from hypothesis import settings

from tests.unit.machine import Interlock

TestInterlock = Interlock.TestCase
TestInterlock.settings = settings(max_examples=120, stateful_step_count=20)
