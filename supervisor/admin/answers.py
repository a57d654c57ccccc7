"""What the admin answers: a pure function of a request line and what the process sees."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from supervisor.admin import metrics
from supervisor.ground import status
from supervisor.ground.config import Config
from supervisor.plane.memory import Plane

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@attrs.frozen
class Answer:
    """A whole response; `body` is left out of the answer to a HEAD, its length is not."""

    status: int
    content_type: str
    body: bytes
    fields: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class View:
    """What can be seen: the running configuration and the plane."""

    config: Config
    plane: Plane
    reasons: Sequence[str] = ()
    holding: Sequence[Mapping[str, Any]] = ()  # what holds up drains, as in the answer of the control socket


def answer(method: bytes, target: bytes, view: View) -> Answer:
    """The answer to one request."""
    path = target.split(b"?", 1)[0]
    page = _PAGES.get(path)
    if page is None:
        return Answer(404, TEXT, b"Not found. There is " + b", ".join(_PAGES) + b".\n")
    if method not in (b"GET", b"HEAD"):
        return Answer(405, TEXT, b"Read-only: GET and HEAD.\n", (("allow", "GET, HEAD"),))
    return page(view)


def _metrics(view: View) -> Answer:
    return Answer(200, metrics.CONTENT_TYPE, metrics.exposition(view.config, view.plane, view.reasons))


def _status(view: View) -> Answer:
    document = {**status.document(view.config, view.plane), "holding": list(view.holding)}
    return Answer(200, JSON, json.dumps(document).encode() + b"\n")


def _health(view: View) -> Answer:
    state = status.state(view.config, view.plane)
    return Answer(200 if state == "ready" else 503, TEXT, state.encode() + b"\n")


_PAGES: Mapping[bytes, Callable[[View], Answer]] = {
    b"/metrics": _metrics,
    b"/status": _status,
    b"/healthz": _health,
}
