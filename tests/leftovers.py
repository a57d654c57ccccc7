"""What a piece of code leaves behind in the process that ran it."""

import gc
import os


def open_files() -> int:
    """How many descriptors are open, once earlier tests' garbage no longer holds any. Compare by `<=`: what an earlier
    test has left to a thread may end meanwhile."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
