"""Policies by name: embedded model, model folder, hub id, API, oracle or random policy."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .inference.endpoint import OPENAI_PREFIX, Endpoint
from .interface import Policy
from .models.model_folder import ModelFolderError

NANO_FOLDER = Path(__file__).parent / "checkpoints" / "nano"
"""The trained checkpoint that the package ships."""

NAMES = ("nano", "oracle", "random")


def load_policy(
    source: str | Path,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    device: str | None = None,
    endpoint: Endpoint | None = None,
    vllm_urls: Sequence[str] = (),
) -> Policy:
    """Load a policy by name.

    Args:
        source: ``nano`` (the shipped checkpoint), ``oracle``, ``random``, a model folder, a hub
            id, ``openai:MODEL``, or with ``base_url`` the model's name on that server.
        base_url: URL of an OpenAI-compatible server, such as ``http://localhost:8000/v1``.
        api_key: API key of that server; by default the environment's ``OPENAI_API_KEY``.
        device: Device of a local model; None for a GPU where there is one.
        endpoint: Address, limits and prices of the server of ``openai:MODEL``, and the notes of
            its model: ``nano``, a folder or a hub id, whose weights are not needed.
        vllm_urls: Base URLs of vLLM servers that generate the replies of ``nano``, the folder or
            the hub id, whose weights they have loaded; empty to generate in this process.

    Raises:
        ModelFolderError: The folder lacks a part (the message names it), holds a family that is
            not supported, or the hub id could not be loaded.
        ValueError: No policy has this name.
    """
    name = str(source)
    if vllm_urls:
        from .inference.vllm.policy import VllmPolicy

        if name in ("oracle", "random") or name.startswith(OPENAI_PREFIX):
            raise ValueError(f"vLLM serves model folders and hub ids, not {name}: drop vllm_urls")
        folder = _nano_folder() if name == "nano" else _known_model(source)
        return VllmPolicy.of_folder(folder, vllm_urls, policy_id=f"{name}@vllm")
    if base_url is not None or name.startswith(OPENAI_PREFIX):
        from .inference.openai_client import OpenAIPolicy

        served = name.removeprefix(OPENAI_PREFIX)
        known = _with_known_notes(endpoint)
        return OpenAIPolicy(served, base_url=base_url, api_key=api_key, endpoint=known)
    if name == "oracle":
        from .scripted.oracle import OraclePolicy

        return OraclePolicy()
    if name == "random":
        from .scripted.random import RandomPolicy

        return RandomPolicy()
    if name == "nano":
        return _load_model(_nano_folder(), policy_id="nano", device=device)
    return _load_model(_known_model(source), policy_id=name, device=device)


def _load_model(source: str | Path, *, policy_id: str, device: str | None) -> Policy:
    from .inference.vlm import VisionLanguagePolicy
    from .models.model_folder import load_token_model, read_notes

    model = load_token_model(source, device=device)
    return VisionLanguagePolicy(model, policy_id=policy_id, notes=read_notes(source))


def _with_known_notes(endpoint: Endpoint | None) -> Endpoint | None:
    """Return an endpoint whose notes are a folder or hub id, where it has any."""
    if endpoint is None or endpoint.notes is None:
        return endpoint
    if endpoint.notes == "nano":
        return replace(endpoint, notes=str(_nano_folder()))
    parts = endpoint.notes.split("/")
    if not Path(endpoint.notes).is_dir() and not (len(parts) == 2 and all(parts)):
        raise ModelFolderError(f"no model folder at {endpoint.notes} to read the notes of")
    return endpoint


def _known_model(source: str | Path) -> str | Path:
    """Return a folder or hub id, after rejecting a name that can be neither."""
    if not Path(source).exists():
        _check_hub_id(str(source))
    return source


def _nano_folder() -> Path:
    if not NANO_FOLDER.is_dir():
        raise ModelFolderError(
            "this installation has no trained nano checkpoint; train one with `codedance run` and "
            "give its folder"
        )
    return NANO_FOLDER


def _check_hub_id(name: str) -> None:
    """Reject a name that can be neither a folder nor a hub id."""
    parts = name.split("/")
    if len(parts) == 2 and all(parts) and not name.startswith((".", "~")):
        return
    if len(parts) > 1 or name.startswith((".", "~")):
        raise ModelFolderError(f"no model folder at {name}")
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"unknown policy {name!r}: one of {', '.join(NAMES)}, a model folder, a hub id "
        f"(OWNER/NAME), or openai:MODEL of a server{hint}"
    )
