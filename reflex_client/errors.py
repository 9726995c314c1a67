# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, each with a slug for programs and one sentence for people."""

from __future__ import annotations


class ReflexClientError(Exception):
    """There is no chunk. slug: for programs; sentence: for people; temporary: the same request may succeed later."""

    slug = "client-error"
    temporary = False
    retry_after_s: float | None = None

    def __init__(self, sentence: str, slug: str = "") -> None:
        self.slug = slug or self.slug
        self.sentence = sentence
        super().__init__(f"{self.slug}: {sentence}")


class InvalidObservationError(ReflexClientError, ValueError):
    """The observation cannot be sent; nothing was."""

    slug = "invalid-observation"


class OutOfTimeError(ReflexClientError, TimeoutError):
    """No reply came within the request's time."""

    slug = "out-of-time"


class UnreachableError(ReflexClientError, ConnectionError):
    """No server listens there, or the connection broke."""

    slug = "unreachable"
    temporary = True


class MalformedReplyError(ReflexClientError):
    """The reply is not what a reflex_ros server sends; nothing of it may move a robot."""

    slug = "malformed-reply"


class RefusedError(ReflexClientError):
    """The server answered with a refusal: the request as it is will be refused again.

    status: of HTTP. request_id: under which the server's log has it.
    """

    slug = "refused"

    def __init__(
        self,
        status: int,
        slug: str,
        sentence: str,
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(sentence, slug)
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class UnauthorizedError(RefusedError):
    """401 or 403: the key is missing or wrong, or this client may not ask."""


class ObservationRefusedError(RefusedError):
    """400, 413, 415 or 422: a field of the request cannot be used; the sentence names it."""


class InferenceFailedError(RefusedError):
    """500: the policy failed on this request, or its actions are not to be executed."""


class UnavailableError(RefusedError):
    """408, 429, 502, 503 or 504: not now. retry_after_s: when it is worth asking again, as the server states."""

    temporary = True


_CLASSES = {
    **dict.fromkeys((401, 403), UnauthorizedError),
    **dict.fromkeys((400, 413, 415, 422), ObservationRefusedError),
    **dict.fromkeys((408, 429, 502, 503, 504), UnavailableError),
    500: InferenceFailedError,
}


def refusal(
    status: int, slug: str, sentence: str, request_id: str, retry_after_s: float | None
) -> RefusedError:
    """Return the exception of a status."""
    return _CLASSES.get(status, RefusedError)(status, slug, sentence, request_id, retry_after_s)
