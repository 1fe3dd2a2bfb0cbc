"""What a chain takes from clients: what its model set opens to them, and what fits its own parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.core.requests.ask import Ask
from runtime.core.requests.json_body import shown
from runtime.core.requests.messages import has_images
from runtime.core.requests.sampling import OPENABLE
from runtime.core.walk.chain import IMAGES, Chain
from runtime.errors import InvalidRequest

_GREEDY = 1e-5
"""The temperature below which vLLM always takes the likeliest token."""


def check_chain_takes(chain: Chain, ask: Ask) -> None:
    """Check a request's parameters against those that ``chain`` takes from clients and sets itself.

    Raises:
        InvalidRequest: the chain does not open a member to clients, or sets one that conflicts with it.

    """
    name, members = ask.chain, ask.params
    for member in members:
        if member in OPENABLE and member not in chain.allow:
            raise _closed(member, name, f"allow: [{member}]")
    for variable in members.get("chat_template_kwargs", ()):
        if variable not in chain.template_variables:
            raise _closed(
                f"chat_template_kwargs.{variable}", name, f"template_variables: [{shown(variable)}]"
            )
    tag = members.get("response_format", {}).get("type") == "structural_tag"
    if tag and "structured_outputs" not in chain.allow:
        raise _closed("response_format.type", name, "allow: [structured_outputs]")
    if has_images(ask.messages) and IMAGES not in chain.allow:
        raise _closed("messages", name, f"allow: [{IMAGES}]", "images in messages")
    _check_answer(name, chain, members)


def _check_answer(name: str, chain: Chain, members: Mapping[str, Any]) -> None:
    """Check the parameters of the last engine together: a client's may not go with the set's."""
    params = chain.answering.params_of(chain.max_tokens, members)
    choices, temperature = params.get("n") or 1, params.get("temperature")
    greedy = temperature is not None and temperature < _GREEDY and not params.get("use_beam_search")
    if choices > 1 and greedy:
        whose = "" if "temperature" in members else f", which the model set says for chain {name!r}"
        remedy = "" if "temperature" in members else ": send a temperature above 0 beside it"
        at = "n" if "n" in members else "temperature"
        raise _refused(at, f"there is one likeliest answer at temperature 0{whose}{remedy}; n is {choices}")
    least, most = params.get("min_tokens") or 0, params.get("max_tokens", chain.max_tokens)
    if least > most:
        whose = "max_tokens" if "max_tokens" in members else f"what the model set says for chain {name!r}"
        raise _refused("min_tokens", f"must be at most {most}, {whose}")


def _closed(param: str, chain: str, key: str, subject: str = "") -> InvalidRequest:
    subject = subject or shown(param)
    why = f"{subject}: chain {chain!r} does not take this from clients; its model set can open it: {key}"
    return InvalidRequest(why, param=shown(param), code="unsupported_parameter")


def _refused(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {why}", param=param, code="invalid_value")
