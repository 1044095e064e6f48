"""The one kind of exception that a user is meant to read."""


class SganError(Exception):
    """A mistake or a bad input, told in one sentence.

    ``hint`` is the command or the value that mends it; the command line prints it on a line of its own.
    """

    def __init__(
        self,
        message: str,  # one sentence: what is wrong, with the name of the file or the option
        hint: str | None = None,  # what to type or to change
    ):
        super().__init__(message)
        self.hint = hint
