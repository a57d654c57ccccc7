"""What the admin answers."""

from __future__ import annotations

import json

import pytest

from supervisor.admin.answers import View, answer
from supervisor.ground.config import Config
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane


@pytest.fixture
def view(config: Config, plane: Plane) -> View:
    return View(config, plane)


def test_metrics_are_in_the_format_of_prometheus(view: View) -> None:
    given = answer(b"GET", b"/metrics", view)
    assert (given.status, given.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"\nportway_generation " in given.body


def test_status_is_the_document(view: View) -> None:
    given = answer(b"GET", b"/status?pretty=1", view)
    assert (given.status, given.content_type) == (200, "application/json")
    assert json.loads(given.body)["portway"]["pop"] == "fra1"


def test_health_is_503_until_ready_and_while_draining(view: View) -> None:
    assert (answer(b"GET", b"/healthz", view).status, answer(b"GET", b"/healthz", view).body) == (200, b"ready\n")
    view.plane.set_state(layout.SUPERVISOR, layout.ProcessState.DRAINING)
    assert (answer(b"GET", b"/healthz", view).status, answer(b"GET", b"/healthz", view).body) == (503, b"draining\n")


def test_health_is_503_while_nobody_polls_a_listener(view: View) -> None:
    view.plane.cells[view.plane.state(Kind.LISTENER, 0)] = 0
    assert answer(b"GET", b"/healthz", view).body == b"starting\n"


def test_it_only_reads(view: View) -> None:
    given = answer(b"POST", b"/status", view)
    assert (given.status, given.fields) == (405, (("allow", "GET, HEAD"),))


@pytest.mark.parametrize("target", [b"/", b"/metricsx", b"/../status", b"*", b"http://x/status", b"/%73tatus"])
def test_anything_else_is_404_and_says_what_there_is(view: View, target: bytes) -> None:
    given = answer(b"GET", target, view)
    assert given.status == 404
    assert b"/metrics, /status, /healthz" in given.body
