"""`portway demo`: the whole picture on this machine, backends and an embedded PostgreSQL included.

Some of its parts (PostgreSQL, credentials, processes, ports) serve the tests and the benchmark too, so nothing heavy
is imported before the demo is really run.
"""


def main(argv: list[str]) -> int:
    """Run the demo until it is ended, or check its commands with --check. Returns the exit code."""
    from supervisor.cli.demo.run import main as run

    return run(argv)
