"""The model that ``gpu.py`` serves: of a Llama 3 8B's shape, with random weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from runtime.errors import CommandError

ROOT = Path(__file__).resolve().parents[2]
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")

SHAPE: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""A ``config.json`` of Llama 3's 8B, less its vocabulary."""


def write_model(folder: Path, tokenizer: Path, layers: int, *, with_weights: bool) -> int:
    """Write a model of ``SHAPE`` into ``folder`` unless it is there; return its weights' bytes.

    Raises CommandError if ``tokenizer`` has none.
    """
    try:
        vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise CommandError(
            f"{tokenizer}: no config.json with a vocab_size beside a tokenizer: {error}"
        ) from error
    config = dict(SHAPE) | {"vocab_size": vocabulary, "num_hidden_layers": layers}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name in _TOKENIZER:
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder / name)
    tensors = tensor_shapes(config)
    file = folder / "model.safetensors"
    if with_weights:
        _write_weights(file, json.dumps(tensors))
    else:
        file.unlink(missing_ok=True)
    return 2 * sum(prod(shape) for shape in tensors.values())


def _write_weights(file: Path, shapes: str) -> None:
    """Write them unless they are there, all of them, in these shapes."""
    written = file.with_name("written.json")
    if file.is_file() and written.is_file() and written.read_text() == shapes:
        return
    written.unlink(missing_ok=True)  # until all of the file is there
    script = [sys.executable, "-m", "benchmarks.parts.random_weights", str(file)]
    done = subprocess.run(  # noqa: S603 - our own arguments
        script, input=shapes, text=True, capture_output=True, check=False, cwd=ROOT
    )
    if done.returncode:
        raise CommandError(f"{file} could not be written: {done.stderr[-1000:]}")
    written.write_text(shapes)


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the shapes of a Llama's tensors, by the names that its checkpoints have."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    queries = config["num_attention_heads"] * config["head_dim"]
    layer = {
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
        "self_attn.q_proj": [queries, hidden],
        "self_attn.k_proj": [keys, hidden],
        "self_attn.v_proj": [keys, hidden],
        "self_attn.o_proj": [hidden, queries],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
    }
    found = {
        f"model.layers.{number}.{name}.weight": shape
        for number in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }
    embedding = [vocabulary, hidden]
    ends = {"model.embed_tokens": embedding, "model.norm": [hidden], "lm_head": embedding}
    return found | {f"{name}.weight": shape for name, shape in ends.items()}


def engine(folder: Path, load_format: str, kv_gib: float, share: float, *, eager: bool) -> dict[str, Any]:
    """Return an engine of a model set that takes a share of a GPU."""
    return {
        "model_loading_config": {"model_id": "8b", "model_source": str(folder)},
        "engine_kwargs": {
            "dtype": "bfloat16",
            "load_format": load_format,
            "max_model_len": 4096,
            "max_num_seqs": 64,
            "kv_cache_memory_bytes": round(kv_gib * 2**30),
            "enable_sleep_mode": True,
            "enforce_eager": eager,
        },
        # Ray gives a replica the whole GPU otherwise, and the next set's would wait for it for ever.
        "placement_group_config": {"bundles": [{"GPU": share, "CPU": 1}]},
    }
