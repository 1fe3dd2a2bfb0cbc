"""Random weights as a safetensors file, for benchmarks: shapes come as JSON on the standard input."""

from __future__ import annotations

import json
import sys

import torch
from safetensors.torch import save_file

_SCALE = 0.02
"""As a model's weights are before its training: sums neither vanish nor overflow."""


def main() -> None:
    """Write bfloat16 tensors to the file that is named, made on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(1)
    tensors = {}
    for name, shape in json.load(sys.stdin).items():
        made = torch.randn(shape, dtype=torch.bfloat16, device=device, generator=generator)
        tensors[name] = (made * _SCALE + (1.0 if len(shape) == 1 else 0.0)).cpu()
    save_file(tensors, sys.argv[1], metadata={"format": "pt"})


if __name__ == "__main__":
    main()
