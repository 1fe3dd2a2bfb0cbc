"""Turn a GGUF file into a folder of safetensors, configuration and tokenizer. Runs as a program.

``python gguf_to_safetensors.py <file.gguf> <folder>``. It imports nothing of Interlock, and
transformers only when it runs: see ``conversion``, which starts it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

_ABOUT_THE_STACK = ("transformers_version", "local_files_only", "is_local")
"""Keys about the software that wrote the files, not about the model."""


def gguf_to_safetensors(gguf: Path, folder: Path) -> None:
    """Write the model in ``gguf`` to ``folder``, every weight widened to bfloat16.

    Needs about 1 GB of memory and 20 s of one core for 135 million parameters.

    Raises:
        ImportError: transformers 5, torch, gguf or accelerate is missing.

    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415 - costs seconds

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),  # quantized as it is, it cannot be saved
        dtype="bfloat16",
        local_files_only=True,
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    tokenizer.save_pretrained(folder)
    forget_the_stack(folder)


def forget_the_stack(folder: Path) -> None:
    """Drop from every JSON file at the top of ``folder`` the keys that only name the software that wrote it.

    Otherwise the same model, fetched with another patch release of transformers, would have another
    digest, and a cluster of two such machines would take it for two models.
    """
    for path in sorted(folder.glob("*config.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in content.items() if key not in _ABOUT_THE_STACK}
        path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    gguf_to_safetensors(Path(sys.argv[1]), Path(sys.argv[2]))
