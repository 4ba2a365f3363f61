"""The Prefect server that the user names in ``PREFECT_API_URL``: whether it answers, or fails."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

import httpx

from ...policies.inference.server_words import without_credentials

VARIABLE = "PREFECT_API_URL"
SECONDS = 10.0


class PrefectAwayError(RuntimeError):
    """A Prefect server does not answer or fails; the message names it and the remedies."""


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


@contextmanager
def failures_reported() -> Generator[None]:
    """Report a failure of Prefect's server while a flow runs as one line, which names the server.

    Raises:
        PrefectAwayError: The server did not answer, or refused a request of Prefect's client.
    """
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_API_URL

    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        url = PREFECT_API_URL.value() or ""
        failure = _http_failure(error, url)
        if failure is None:
            raise
        raise PrefectAwayError(
            f"the Prefect server at {without_credentials(url)} failed during the run ({failure}): "
            "completed work is kept; start the server and repeat the command, which resumes the "
            "run, or add --no-prefect"
        ) from error


def _http_failure(error: BaseException | None, url: str) -> str | None:
    """Return what a server answered, or why it did not; None if another caused the error."""
    while error is not None:
        if isinstance(error, httpx.HTTPError) and url and _is_of(error, url):
            if isinstance(error, httpx.HTTPStatusError):
                return f"HTTP {error.response.status_code} {error.response.reason_phrase}".strip()
            return str(error) or type(error).__name__
        error = error.__cause__
    return None


def _is_of(error: httpx.HTTPError, url: str) -> bool:
    """Whether a request was for the server; other clients raise the same errors."""
    try:
        return error.request.url.netloc == httpx.URL(url).netloc
    except RuntimeError:  # it names no request
        return False
