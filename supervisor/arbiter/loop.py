"""The supervisor's loop: descriptors, signals and timers, all calling plain functions; nothing else runs here.

Signals come through `signal.set_wakeup_fd`, so that they are events like any other and handlers run between two of
them, never inside one. (`sigtimedwait` can't wait for messages, and its mask would be inherited by the children.)
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import attrs

MAX_WAIT = 3600.0  # seconds; a selector takes no infinity
REST = 1.0  # seconds; short for a person, and one line a second in the log


class HasFileno(Protocol):
    def fileno(self) -> int: ...


@attrs.define(eq=False, order=False)
class Timer:
    """A call to come; `cancel` makes it never come."""

    due: float  # monotonic seconds
    function: Callable[[], None] | None

    def cancel(self) -> None:
        self.function = None


class Loop:
    """Until `stop`. An exception of a callback ends that call alone; `failed` is told of it.

    A descriptor whose callback has failed rests for `REST`: what it is ready for is still there and would fail again.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._resting: dict[int, Timer] = {}
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._sequence = itertools.count()
        self._signals: dict[int, Callable[[], None]] = {}
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._stopped, self._code = False, 0
        self._selector.register(self._woken, selectors.EVENT_READ, self._read_signals)

    # -- what to wait for

    def watch(self, what: HasFileno | int, function: Callable[[], None], *, write: bool = False) -> None:
        """Call `function` whenever `what` can be read, or written instead. Again for the same changes it."""
        events = selectors.EVENT_WRITE if write else selectors.EVENT_READ
        fd = what if isinstance(what, int) else what.fileno()
        self._wake_up(fd)
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, function)
        else:
            self._selector.register(fd, events, function)

    def forget(self, what: HasFileno | int) -> None:
        """No longer, if ever; before it is closed."""
        fd = what if isinstance(what, int) else what.fileno()
        self._wake_up(fd)
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def after(self, seconds: float, function: Callable[[], None]) -> Timer:
        """Call once, in `seconds`."""
        timer = Timer(time.monotonic() + seconds, function)
        heapq.heappush(self._timers, (timer.due, next(self._sequence), timer))
        return timer

    def every(self, seconds: float, function: Callable[[], None]) -> None:
        """Call again and again."""

        def again() -> None:
            self.after(seconds, again)
            function()

        self.after(seconds, again)

    def on_signals(self, handlers: Mapping[signal.Signals, Callable[[], None]]) -> None:
        """Call these between two events; the process's own handlers only wake the loop."""
        self._signals.update({int(number): function for number, function in handlers.items()})
        for number in handlers:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    # -- running

    def run(self) -> int:
        """Until `stop`; what it was given. It may run again."""
        while not self._stopped:
            self._turn()
        self._stopped = False
        return self._code

    def stop(self, code: int) -> None:
        """After the callback that runs now."""
        self._stopped, self._code = True, code

    def close(self) -> None:
        """Also in a child, so that it holds nothing of this."""
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def ignore_signals(self) -> None:
        """From now on, all that were handled, because the process ends: as Python ends, it makes those deadly again
        that have a handler, and one more TERM in that moment would take the place of the exit code."""
        signal.set_wakeup_fd(-1)
        for number in self._signals:
            signal.signal(number, signal.SIG_IGN)

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._wait()):
            # One callback may have forgotten what another event of this batch is for.
            if self._selector.get_map().get(key.fd) is key and not self._stopped and not self._call(key.data):
                self._rest(key)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now and not self._stopped:
            _, _, timer = heapq.heappop(self._timers)
            function, timer.function = timer.function, None
            if function is not None:
                self._call(function)

    def _call(self, function: Callable[[], None]) -> bool:
        """Whether it did its work."""
        try:
            function()
        except Exception as error:
            self._failed(error)
            return False
        return True

    def _rest(self, key: selectors.SelectorKey) -> None:
        if self._selector.get_map().get(key.fd) is key:
            self._selector.unregister(key.fd)
            self._resting[key.fd] = self.after(REST, lambda: self._rested(key))

    def _rested(self, key: selectors.SelectorKey) -> None:
        del self._resting[key.fd]
        self._selector.register(key.fd, key.events, key.data)

    def _wake_up(self, fd: int) -> None:
        timer = self._resting.pop(fd, None)
        if timer is not None:
            timer.cancel()

    def _wait(self) -> float:
        while self._timers and self._timers[0][2].function is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return MAX_WAIT
        return min(MAX_WAIT, max(0.0, self._timers[0][0] - time.monotonic()))

    def _read_signals(self) -> None:
        try:
            numbers = self._woken.recv(4096)
        except BlockingIOError:
            return
        for number in dict.fromkeys(numbers):  # several of one kind waiting are one, as the kernel has it
            function = self._signals.get(number)
            if function is not None:
                self._call(function)  # apart: one that fails must not cost the others
