"""How a supervisor comes to be: started, rehearsed, or by an upgrade. `run` is the whole of `portway run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import setproctitle

from supervisor.arbiter.control import CannotControl
from supervisor.arbiter.daemon import Daemon
from supervisor.arbiter.estate import VARIABLE
from supervisor.arbiter.listeners import CannotListen
from supervisor.arbiter.parts import Parts
from supervisor.arbiter.pidfile import CannotWrite
from supervisor.arbiter.rehearsal import rehearse
from supervisor.arbiter.site import adopt_site, open_site
from supervisor.arbiter.succession import inherit
from supervisor.ground import log
from supervisor.ground.config import ConfigError
from supervisor.plane.region import PlaneError

FAILED, BAD_CONFIGURATION = 1, 2  # exit codes


def run(path: Path, parts: Parts) -> int:
    """The daemon, until it is told to end: 0; 1 if it can't start, 2 for a configuration with errors.

    Or its part in an upgrade, as the environment says: a rehearsal of this code, or to go on with what a supervisor of
    other code has left in this process."""
    role, *numbers = os.environ.get(VARIABLE, "").split(":")
    if role == "rehearse":
        del os.environ[VARIABLE]
        setproctitle.setproctitle(f"portway: rehearsal of {path}")
        document, report = map(int, numbers)
        return rehearse(path, parts.tiers, lambda: parts.load(path), document, report)
    if role == "adopt":
        # What is raised before all is adopted is held up by `holdfast`.
        estate, config = inherit(int(numbers[0]))
        log.configure(config.log)
        return Daemon(path, config, parts, adopt_site(estate, config, parts.tiers)).run()
    try:
        config = parts.load(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    log.configure(config.log)
    try:
        site = open_site(config, parts.tiers)
    except (CannotControl, CannotListen, CannotWrite, PlaneError, OSError) as error:
        print(f"portway: {error.strerror if isinstance(error, OSError) else error}", file=sys.stderr)
        return FAILED
    return Daemon(path, config, parts, site).run()
