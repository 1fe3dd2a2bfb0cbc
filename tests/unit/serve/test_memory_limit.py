"""How much main memory there is: what a container may use, not what its machine has."""

import psutil
import pytest

from runtime.serve.cluster.memory_limit import main_memory

GIB = 2**30


def group(folder, limit, used, reclaimable, *, version):
    """Write what the kernel says of a control group."""
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {reclaimable}\n")


def member(tmp_path, text):
    """Write which groups this process is in."""
    (tmp_path / "own").write_text(text)
    return tmp_path / "groups", tmp_path / "own"


# A container's limit and what is left of it are what counts, in either version of control groups; files that
# the kernel would drop are not used.
@pytest.mark.parametrize(("version", "line", "at"), [(2, "0::/", ""), (1, "4:memory:/docker/c1", "memory")])
def test_a_container(tmp_path, version, line, at):
    groups, own = member(tmp_path, f"9:cpu:/\n{line}\n")
    group(groups / at, GIB, GIB // 2, GIB // 4, version=version)
    memory = main_memory(groups, own)
    assert (memory.total, memory.free) == (GIB, GIB - GIB // 2 + GIB // 4)


# Of groups within groups the narrowest counts: a service's limit within its machine's.
def test_groups_within_groups(tmp_path):
    groups, own = member(tmp_path, "0::/system.slice/ray.service\n")
    group(groups / "system.slice", GIB, 0, 0, version=2)
    group(groups / "system.slice" / "ray.service", GIB // 2, GIB // 4, 0, version=2)
    memory = main_memory(groups, own)
    assert (memory.total, memory.free) == (GIB // 2, GIB // 4)


# Without a limit, or where nothing is told, it is the machine's memory.
@pytest.mark.parametrize("limit", ["max", "9223372036854771712", None])
def test_no_limit(tmp_path, limit):
    groups, own = member(tmp_path, "0::/\n")
    if limit is not None:
        group(groups, limit, 5, 0, version=2)
    assert main_memory(groups, own).total == psutil.virtual_memory().total
    assert main_memory(groups, tmp_path / "nowhere").total == psutil.virtual_memory().total
