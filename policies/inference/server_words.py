"""A server's error responses: status and message, shortened, and without the API key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, cast
from urllib.parse import quote, urlsplit

_SHOWN_CHARACTERS = 300
_SHORTEST_KEY = 4
"""Shorter texts are not secret, and masking them would make messages unreadable."""
REFUSALS = frozenset({401, 402, 403, 404, 405, 407, 410, 501})
"""Statuses that concern the key, the account, the address or the model, not this one request."""


class Answered(Protocol):
    """An HTTP response, of httpx or of the library that OpenAI's client uses."""

    @property
    def status_code(self) -> int:
        """Status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers; their names in any case."""
        ...

    @property
    def text(self) -> str:
        """Body."""
        ...

    @property
    def reason_phrase(self) -> str:
        """Words of the status."""
        ...

    @property
    def is_redirect(self) -> bool:
        """Whether it names another address."""
        ...


def is_refusal(response: Answered) -> bool:
    """Return whether a server would answer every other request in the same way."""
    return response.status_code in REFUSALS or response.is_redirect


def words_of(response: Answered, key: str = "") -> str:
    """Return status and message of a failed request: ``HTTP 401: no such key``.

    Args:
        response: Response of the server.
        key: API key to mask, before the message is cut.
    """
    message = without_key(_message(response.text) or response.reason_phrase, key)
    if response.is_redirect:
        message = f"moved to {without_key(response.headers.get('location', 'nowhere'), key)}"
    shown = short(message)
    return f"HTTP {response.status_code}: {shown}" if shown else f"HTTP {response.status_code}"


def short(text: str) -> str:
    """Return text in one line without control characters, truncated where it is long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


def without_key(text: str, key: str) -> str:
    """Return text with the key masked, as it is, URL-encoded or JSON-encoded.

    The beginning of a key is masked too where the text was cut within it.
    """
    if len(key) < _SHORTEST_KEY:
        return text
    for form in (key, quote(key, safe=""), json.dumps(key)[1:-1]):
        text = text.replace(form, "***")
    for size in range(len(key) - 1, _SHORTEST_KEY, -1):
        text = text.replace(key[:size] + "…", "***…")
    return text


def without_credentials(url: str) -> str:
    """Return a URL without user and password.

    >>> without_credentials("http://me:secret@host:1/v1")
    'http://host:1/v1'
    """
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return scheme + mark + host.rpartition("@")[2] + slash + path


def checked_key(key: str) -> str:
    """Return a key without surrounding whitespace.

    Raises:
        ValueError: The key is not valid in an HTTP header.
    """
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(
            "the server's key (OPENAI_API_KEY) holds characters that no HTTP header can hold: "
            "copy it again, plain ASCII in one line"
        )
    return key


def checked_url(url: str) -> str:
    """Return a base URL without trailing slashes.

    Raises:
        ValueError: ``url`` is not an http or https URL.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_address = is_address and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
    if not is_address or not url.isprintable() or set(url) & set(" ?#"):
        raise ValueError(
            f"{without_credentials(url)!r} is not a server address: expected one such as "
            "http://localhost:8000/v1"
        )
    return url.rstrip("/")


def _message(text: str) -> str:
    """Return the message in an error's body: OpenAI's format, FastAPI's, or the text itself."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "message", "detail"):
        if isinstance(found, Mapping):
            content = cast("Mapping[str, Any]", found)
            found = content.get(name) or content
    return found if isinstance(found, str) else text
