"""Stands around a supervisor that takes over by an exec, and holds the site should that fail.

If this process ended, the kernel would tell every worker, and they would drain. So as long as the new supervisor has
not taken over (it then takes `PORTWAY_UPGRADE` out of the environment), whatever it dies of is written down, and this
program waits, with all descriptors open and every signal blocked: the old workers serve on. It tries again every few
seconds, and at once on USR2; TERM, INT and QUIT end it, and with it the daemon.

The old supervisor passes this text to `python -c`: it imports nothing that could have been replaced by then.
"""

import os
import runpy
import signal
import sys
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
    text = f"portway: the new code failed after the exec; the workers go on, the next try follows in {RETRY:g} s"
    print(text, file=sys.stderr, flush=True)
    found = signal.sigtimedwait((*ENDING, signal.SIGUSR2), RETRY)
    if found is not None and found.si_signo in ENDING:
        os._exit(1)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    main(*sys.argv[1:])
