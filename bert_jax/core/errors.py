"""The one exception that a door turns into a sentence instead of a traceback."""


class UserError(Exception):
    """Something the user can mend; its text is one sentence that says what to do.

    Attributes:
      status: with which a door exits.
    """

    status = 1


class Diverged(UserError):
    """Training that cannot go on, since its loss or gradient is not finite."""

    status = 3


def first_line(e: BaseException) -> str:
    """The first line of another library's error, short enough to stand in a sentence."""
    return (str(e).strip().splitlines() or [type(e).__name__])[0].rstrip('.')[:200]
