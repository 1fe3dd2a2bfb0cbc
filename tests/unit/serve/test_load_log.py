"""What vLLM's log tells of how an engine comes up, and how it gets to the replica."""

import logging
import tempfile

import pytest

from runtime.core.swap.phase import EnginePhase, Stage
from runtime.serve.loading import log as load_log
from runtime.serve.loading.log import LoadLog, attach
from runtime.serve.loading.progress import Fetching, furthest, stage_of

LINES = [
    ("Initializing a V1 LLM engine (v0.29.0) with config: model='/m', ...", "starting", None),
    ("Starting to load model /models/smollm2...", "loading", None),
    ("Loading model from scratch...", "loading", None),
    (
        "Filesystem type for checkpoints: EXT4. Checkpoint size: 0.25 GiB. Available RAM: 9 GiB.",
        "loading",
        None,
    ),
    ("Time spent downloading weights for org/model: 12.345678 seconds", "loading", None),
    ("Prefetching checkpoint files: 40% (2/5)", "loading", 40),
    ("Loading weights took 0.17 seconds", "loading", None),
    ("Model loading took 14.2 GiB memory and 3.141593 seconds", "loading", None),
    ("Warming up model for the compilation...", "compiling", None),
    ("Using cache directory: /c/torch_compile_cache/1 for vLLM's torch.compile", "compiling", None),
    ("vLLM's torch.compile cache is disabled.", "compiling", None),
    ("Dynamo bytecode transform time: 5.52 s", "compiling", None),
    ("Compiling a graph for compile range (1, 2048) takes 9.1 s", "compiling", None),
    (
        "Directly load the compiled graph(s) for compile range (1, 8) from the cache, took 0.5 s",
        "compiling",
        None,
    ),
    ("torch.compile took 15.02 s in total", "compiling", None),
    ("Available KV cache memory: 50.1 GiB", "allocating", None),
    (
        "GPU KV cache size: 36,640 tokens, Maximum concurrency for 2,048 tokens per request: 17.89x",
        "allocating",
        None,
    ),
    ("JIT kernel warmup starting.", "warming", None),
    ("Compile and warming up model for size 8192", "warming", None),
    ("Rank 0: Torch profiler disabled for CUDA graph capture", "warming", None),
    ("Graph capturing finished in 12 secs, took 0.60 GiB", "warming", None),
    ("init engine (profile, create kv cache, warmup model) took 3.30 s", "warming", None),
]


@pytest.fixture
def vllm():
    """vLLM's logger as vLLM sets it up: one handler of its own, nothing propagated."""
    logger = logging.getLogger("vllm")
    before = list(logger.handlers), logger.level, logger.propagate
    seen = []
    own = logging.Handler()
    own.emit = lambda record: seen.append(record.getMessage())
    logger.handlers, logger.propagate = [own], False
    logger.setLevel(logging.INFO)
    yield logging.getLogger("vllm.v1.engine.core"), seen
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def attached():
    """How often vLLM's log has been attached to."""
    return sum(isinstance(handler, load_log._Appending) for handler in logging.getLogger("vllm").handlers)


# Each line of vLLM that tells of a phase is known, with the percentage if it has one.
@pytest.mark.parametrize(("line", "phase", "percent"), LINES)
def test_lines(line, phase, percent):
    assert stage_of(line) == Stage(EnginePhase(phase), percent)


# Lines that tell of nothing are known to: a request, a warning, a model that is named like a phase.
@pytest.mark.parametrize(
    "line",
    [
        "",
        "Added request chatcmpl-1",
        "Engine 000: Avg prompt throughput: 12.0 tokens/s, GPU KV cache usage: 0.3%",
        "CPU backend prefers block_size is multiples of 32",
        "Skipping CUDA graph capture. To turn on CUDA graph capture, ...",
    ],
)
def test_other_lines(line):
    assert stage_of(line) is None


# Weights that vLLM fetches itself are being fetched until it reads them; others are loaded at once.
@pytest.mark.parametrize(
    ("fetching", "phases"),
    [
        (Fetching.NOBODY, ["starting", "starting", "loading", "loading"]),
        (Fetching.BY_VLLM, ["starting", "starting", "fetching", "loading"]),
        (Fetching.BEFORE_VLLM, ["fetching", "fetching", "loading", "loading"]),
    ],
)
def test_fetching(fetching, phases):
    lines = [LINES[0][0], "Starting to load model org/model...", LINES[3][0]]
    assert [furthest(lines[:n], fetching).phase for n in range(4)] == phases


# The furthest of the workers counts: one that lags takes nothing back.
def test_a_worker_that_lags():
    lines = ["Available KV cache memory: 50.1 GiB", "Loading weights took 9 seconds"]
    assert furthest(lines, Fetching.NOBODY).phase is EnginePhase.ALLOCATING


# What vLLM logs in a process that the replica has started reaches the replica; vLLM's own log has it, too.
def test_replica_hears_of_vllm(vllm):
    logger, seen = vllm
    with LoadLog(Fetching.NOBODY) as log:
        attach()
        attach()
        assert attached() == 1
        assert log.stage() == Stage(EnginePhase.STARTING)
        for line, phase in (
            ("Starting to load model %s...", "loading"),
            ("torch.compile took %s", "compiling"),
        ):
            logger.info(line, "/models/smollm2\nand more")
            logger.info("Added request chatcmpl-%d", 1)
            assert log.stage().phase == phase
        assert (log._folder / "log").read_text().count("\n") == 2
    assert len(seen) == 4


# A process that logs on after the replica has come up leaves vLLM's log; the folder is gone.
def test_nobody_listens_any_more(vllm):
    logger, seen = vllm
    with LoadLog(Fetching.NOBODY) as log:
        attach()
        folder = log._folder
    assert not folder.exists()
    logger.info("Loading weights took 3 seconds")
    assert attached() == 0
    assert seen == ["Loading weights took 3 seconds"]
    assert log.stage() == Stage(EnginePhase.STARTING)


# A vLLM process that no replica of Interlock has started is left alone.
def test_other_processes_of_vllm(vllm):
    attach()
    with LoadLog(Fetching.NOBODY):
        pass
    attach()
    assert attached() == 0


# A node without room for the file loads its engine all the same; only the phases are missing.
def test_no_room_for_the_log(vllm, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with LoadLog(Fetching.BY_VLLM) as log:
        attach()
        assert log.stage() == Stage(EnginePhase.STARTING)
    assert attached() == 0
    assert load_log.load_log() is None
