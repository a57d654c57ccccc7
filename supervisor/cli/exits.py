"""How every command ends: its exit code, and the end that is an error."""

DONE = 0
FAILED = 1
USAGE = 2  # wrong usage or configuration


class Stopped(Exception):
    """A command can't do what it was asked: the text is for the person at the terminal, `code` for the shell."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
