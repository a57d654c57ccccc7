"""The lane: where a worker's connections live.

A trio task switch costs more than a whole small request may, so the sessions of a worker are not trio tasks. They are
ordinary coroutines that one trio task resumes straight from one epoll (epoll.py). They await only what the lane gives
them (sessions.py): their sockets, events, a bounded rest, or a real trio task by `offload`. Wake-ups are hints: whoever
is resumed looks again at what it waits for.
"""

from supervisor.ground.lane.conn import READ_SIZE, Conn, Stream, wait_any
from supervisor.ground.lane.epoll import Lane, Listening
from supervisor.ground.lane.sessions import PARK, Cancelled, Event, Overdue, Scheduler, Scope, Session

__all__ = [
    "PARK",
    "READ_SIZE",
    "Cancelled",
    "Conn",
    "Event",
    "Lane",
    "Listening",
    "Overdue",
    "Scheduler",
    "Scope",
    "Session",
    "Stream",
    "wait_any",
]
