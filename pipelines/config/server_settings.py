"""Settings of a model server: the key ``server`` in a preset of flows.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .strict_model import StrictModel

Limit = Annotated[float, Field(ge=0.0)]


class ServerSettings(StrictModel):
    """Settings of the server of a policy ``openai:MODEL``; `Endpoint` documents each field.

    The API key is read only from the environment variable ``OPENAI_API_KEY``.
    """

    base_url: str | None = None
    requests_per_minute: Limit = 0.0
    tokens_per_minute: Limit = 0.0
    price_input: Limit = 0.0
    price_output: Limit = 0.0
    concurrency: Annotated[int, Field(ge=1)] = 8
    timeout_seconds: Annotated[float, Field(gt=0.0)] = 120.0
    max_retries: Annotated[int, Field(ge=0)] = 4
