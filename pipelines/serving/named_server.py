"""The Prefect server that the user names in ``PREFECT_API_URL``: whether it answers."""

from __future__ import annotations

import os

import httpx

from ...policies.inference.server_words import without_credentials

VARIABLE = "PREFECT_API_URL"
SECONDS = 10.0


class PrefectAwayError(RuntimeError):
    """The user's Prefect server does not answer; the message names it and the remedies."""


def check_named_server(otherwise: str = "") -> None:
    """Check that the user's Prefect server answers, if there is one; a refusal is an answer.

    Args:
        otherwise: A further remedy for the message.

    Raises:
        PrefectAwayError: It does not answer.
    """
    from prefect import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = PREFECT_API_URL.value()
    if not url:
        return
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings={"timeout": SECONDS}, sync_client=True) as client,
    ):
        error = client.api_healthcheck()
    if isinstance(error, httpx.TransportError):
        unset = f"unset {VARIABLE}" if os.environ.get(VARIABLE) else f"remove Prefect's {VARIABLE}"
        remedies = ["start it", unset, *([otherwise] if otherwise else [])]
        raise PrefectAwayError(
            f"the Prefect server at {without_credentials(url)} does not answer "
            f"({error or type(error).__name__}): {', '.join(remedies[:-1])} or {remedies[-1]}"
        )
