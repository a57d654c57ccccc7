"""A reload inside a running process: prepared beside what runs, then swapped, or forgotten.

The generation cell in the plane is the truth: what has been prepared for the generation it shows is committed, whether
or not the message that says so arrived.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Sequence
from typing import Any

import attrs

from supervisor.ground import cargo, log
from supervisor.ground.config import Config
from supervisor.ground.config.certificates import with_files
from supervisor.ground.orders import MAX_REASON, Prepare, Prepared, Refused, Sockets, Swapped
from supervisor.ground.polling import Polling
from supervisor.ground.tier import Runtime, Worker
from supervisor.plane.layout import SUPERVISOR


@attrs.frozen
class Pending:
    """What waits for its generation."""

    generation: int
    config: Config
    prepared: Any
    removed: tuple[str, ...]


@attrs.define(eq=False)
class Swap:
    """The reloads of one process."""

    worker: Worker
    runtime: Runtime
    polling: Polling
    logs_access: bool
    _pending: Pending | None = attrs.field(default=None, init=False)
    _arrived: dict[tuple[int, str], dict[int, socket.socket]] = attrs.field(factory=dict, init=False)

    def receive_sockets(self, order: Sockets, fds: Sequence[int]) -> None:
        """Sockets of a listener to come; their Prepare follows."""
        slots = self._arrived.setdefault((order.generation, order.listener), {})
        for slot, fd in enumerate(fds, order.first):
            slots[slot] = socket.socket(fileno=fd)

    def prepare(self, order: Prepare, fds: Sequence[int]) -> Prepared | Refused:
        """The answer to the supervisor. Whatever goes wrong here is a refusal; what runs is untouched."""
        self.catch_up()
        self._forget(keep=order.generation)
        try:
            config = cargo.unpack(fds[0])
            prepared = self.runtime.prepare(config)
        except ValueError as error:
            return Refused(order.generation, (str(error)[:MAX_REASON],))
        except Exception as error:
            self.worker.log.error("reload failed", reason=traceback.format_exc())
            return Refused(order.generation, (f"{type(error).__name__}: {error}"[:MAX_REASON],))
        finally:
            for fd in fds:
                os.close(fd)
        self._pending = Pending(order.generation, config, prepared, order.removed)
        self.worker.plane.acknowledge(self.worker.column, order.generation)
        return Prepared(order.generation)

    def catch_up(self) -> None:
        """Commit what was prepared, if the generation cell has come to it."""
        pending = self._pending
        if pending is None or self.worker.plane.generation != pending.generation:
            return
        self._pending = None
        worker, old = self.worker, self.worker.config
        self.polling.remove(pending.removed)
        worker.config = pending.config
        self.runtime.commit(pending.prepared)
        log.configure(pending.config.log)
        if self.logs_access and pending.config.log.access != old.log.access:
            worker.access.reopen(pending.config.log.access)
        self.polling.add(self._take_arrived(pending.generation))
        self.polling.look()
        worker.mailbox.send(SUPERVISOR, Swapped(pending.generation))

    def renew(self, fds: Sequence[int]) -> None:
        """Renewed certificates, beside any reload. Whatever goes wrong leaves the old ones at work."""
        self.catch_up()
        worker = self.worker
        try:
            config = with_files(worker.config, cargo.unpack(fds[0]))
            self.runtime.renew(config)
            worker.config = config
        except Exception:
            worker.log.error("certificates not renewed", reason=traceback.format_exc())
        finally:
            for fd in fds:
                os.close(fd)

    def abort(self, generation: int) -> None:
        """Nothing comes of it: the plane says again what runs here."""
        self.catch_up()
        self._forget(keep=None)
        self.worker.plane.acknowledge(self.worker.column, self.worker.plane.generation)

    def _forget(self, keep: int | None) -> None:
        """Drop what was prepared, and sockets that came for any generation but `keep`."""
        self._pending = None
        for key in [key for key in self._arrived if key[0] != keep]:
            for sock in self._arrived.pop(key).values():
                sock.close()

    def _take_arrived(self, generation: int) -> dict[str, list[socket.socket]]:
        keys = [key for key in self._arrived if key[0] == generation]
        return {key[1]: [sock for _, sock in sorted(self._arrived.pop(key).items())] for key in keys}
