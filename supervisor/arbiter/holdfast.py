"""Stands around a supervisor that takes over by an exec, and holds the site should that fail.

If this process ended, the kernel would tell every worker, and they would drain. So as long as the new supervisor has
not taken over (it then takes `PORTWAY_UPGRADE` out of the environment), whatever it dies of is written down, and this
program waits, with all descriptors open and every signal blocked: the old workers serve on. It tries again every few
seconds, and at once on USR2; TERM, INT and QUIT end it, and with it the daemon. A service manager hears of it, and its
watchdog goes on hearing that the process lives: were it ended, all would be lost that it holds.

The old supervisor passes this text to `python -c`: it imports nothing that could have been replaced by then.
"""

import os
import runpy
import signal
import socket
import sys
import time
import traceback

VARIABLE = "PORTWAY_UPGRADE"
RETRY = 5.0  # seconds; a package that was being replaced during the exec is whole by then
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def main(kind: str, target: str, *arguments: str) -> None:
    """Run `target` as `python -m TARGET` or `python TARGET` would."""
    sys.argv = [target, *arguments]
    try:
        if kind == "-m":
            runpy.run_module(target, run_name="__main__", alter_sys=True)
        else:
            if not sys.flags.safe_path:
                sys.path[0] = os.path.dirname(os.path.abspath(target))
            runpy.run_path(target, run_name="__main__")
    except BaseException as error:
        if VARIABLE not in os.environ:
            raise
        # Its frames live as long as `error` does, and with them the sockets that it had made of the descriptors.
        traceback.print_exception(error)
        hold()


def hold() -> None:
    """Until the next try, or the end."""
    text = f"the new code failed after the exec; the workers go on, the next try follows in {RETRY:g} s"
    print(f"portway: {text}", file=sys.stderr, flush=True)
    tell(f"STATUS={text}")
    end = time.monotonic() + RETRY
    found = None
    while found is None and (left := end - time.monotonic()) > 0:
        tell("WATCHDOG=1")
        found = signal.sigtimedwait((*ENDING, signal.SIGUSR2), min(left, beat()))
    if found is not None and found.si_signo in ENDING:
        os._exit(1)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def tell(line: str) -> None:
    """The service manager, if there is one: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.sendto(line.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError:  # it has gone, or is stuck
        pass


def beat() -> float:
    """Seconds between two messages to the watchdog: half of what it waits, sd_watchdog_enabled(3)."""
    try:
        return int(os.environ.get("WATCHDOG_USEC", "")) / 2e6 or RETRY
    except ValueError:
        return RETRY


if __name__ == "__main__":
    main(*sys.argv[1:])
