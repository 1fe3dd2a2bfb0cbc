"""What the GPU's benchmark makes of a model's shape, of logs, and of what clients saw."""

from __future__ import annotations

from math import prod

from benchmarks.parts.gpu_model import SHAPE, tensor_shapes
from benchmarks.parts.gpu_view import first_token, inter_token, loads
from benchmarks.parts.open_loop import Record


# The shape is Llama 3 8B's: with its vocabulary, as many parameters as its model card says.
def test_shape_is_llama_3_8b() -> None:
    tensors = tensor_shapes(dict(SHAPE) | {"vocab_size": 128_256})
    assert sum(prod(shape) for shape in tensors.values()) == 8_030_261_248


# A line that Ray has handed on to another process's log counts once, and lines come in the order of time.
def test_a_line_in_two_logs_counts_once() -> None:
    first = "(Worker pid=1) INFO 11-26 01:46:40 [default_loader.py:430] Loading weights took 2.00 seconds\n"
    second = "(Worker pid=2) INFO 11-26 01:48:19 [default_loader.py:430] Loading weights took 4.00 seconds\n"
    handed_on = f"(RayWorkerProc pid=1) {first}"
    found = loads([second, first, handed_on], 8_000_000_000)
    assert found["read_s"] == [2.0, 4.0]
    assert found["read_gb_per_s"] == [4.0, 2.0]
    assert found["awake_s"] == []


# A gap counts for the phase in which it ended, a time to first token for the one in which it was asked for.
def test_times_are_those_of_their_phase() -> None:
    marks = [("before", 0.0), ("load", 10.0)]
    record = Record(stream=True, sent=9.0, first=9.5, pieces=[9.5, 9.9, 10.4])
    gaps, first = inter_token([record], marks), first_token([record], marks)
    assert (gaps["before"]["max"], gaps["load"]["max"]) == (400.0, 500.0)
    assert (first["before"]["max"], first["load"]["count"]) == (500.0, 0)
