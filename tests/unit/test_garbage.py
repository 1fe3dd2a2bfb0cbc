"""Python's collector in gateways, the manager and engines' replicas."""

import gc

from runtime.serve.garbage import leave_startup_alone


# It looks at nothing that was there at the start, and seldom at what requests make.
def test_the_collector_looks_seldom():
    threshold = gc.get_threshold()
    try:
        leave_startup_alone()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() == (500_000, *threshold[1:])
    finally:
        gc.set_threshold(*threshold)
