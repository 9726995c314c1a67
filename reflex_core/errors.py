# SPDX-License-Identifier: Apache-2.0
"""The errors a user can act on. Each has a stable slug and a message of one sentence."""

from __future__ import annotations

from reflex_core.text.untrusted import escaped

SENTENCE_CHARACTERS = 4000


class ReflexError(Exception):
    """Anything this package refuses to do; `slug` is stable, the message is for people.

    It may quote untrusted text (files, topics, requests), so that it is reduced to one printable line.
    """

    slug = "error"

    def __init__(self, message: str, slug: str | None = None) -> None:
        super().__init__(escaped(message, SENTENCE_CHARACTERS))
        if slug is not None:
            self.slug = slug


class ConfigurationError(ReflexError):
    """The node must not start: settings, embodiment and export do not make a safe whole."""

    slug = "bad-configuration"


class SettingError(ConfigurationError):
    """A setting is unknown, of the wrong type, or out of its range."""

    slug = "bad-setting"


class EmbodimentError(ConfigurationError):
    """An embodiment file is missing, malformed, or contradicts itself."""

    slug = "bad-embodiment"


class ExportError(ConfigurationError):
    """An export directory is incomplete, damaged, or does not describe its graphs."""

    slug = "bad-export"


class ObservationError(ReflexError):
    """The caller sent something no policy can act on. Never counts against the model.

    request_id: the caller's own id of the request, where it could be read before the rest was refused.
    """

    slug = "bad-observation"
    request_id = ""


class NotReadyError(ReflexError):
    """No policy is serving right now; `state` is the engine's."""

    slug = "not-ready"

    def __init__(
        self, state: str, message: str | None = None, slug: str | None = None, retry_after_s: float = 1.0
    ) -> None:
        super().__init__(message or f"the policy is not serving: state is '{state}'", slug)
        self.state = state
        self.retry_after_s = retry_after_s


class InferenceError(ReflexError):
    """The model raised or produced something that is not an action chunk."""

    slug = "inference-error"


class CancelledError(InferenceError):
    """The caller no longer waits for this inference: its deadline has passed."""

    slug = "cancelled"
