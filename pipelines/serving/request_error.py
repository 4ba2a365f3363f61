"""Error of a chat request, in OpenAI's format."""

from __future__ import annotations

from typing import Any


class RequestError(ValueError):
    """A request cannot be served.

    Attributes:
        status: Status code of the HTTP response.
        kind: OpenAI's ``type`` of the error.
        parameter: Field at fault; None for the request as a whole.
        retry_seconds: Seconds to wait before a retry; None if a retry would not help.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        parameter: str | None = None,
        retry_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.parameter = parameter
        self.retry_seconds = retry_seconds

    def body(self) -> dict[str, Any]:
        """Return the error in OpenAI's format."""
        error = {"message": str(self), "type": self.kind, "param": self.parameter, "code": None}
        return {"error": error}
