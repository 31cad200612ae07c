"""Exceptions that commands report as one line instead of a traceback."""


class UserError(Exception):
    """An error that the user can fix. Its text says what is wrong and what to do.

    Attributes:
      exit_status: exit status of a command that ends with this error.
    """

    exit_status = 1


class Diverged(UserError):
    """Error of a training run whose loss, gradient or parameters are no longer finite."""

    exit_status = 3


def first_line(e: BaseException) -> str:
    """Return the first line of another library's error, shortened so that it fits into a message."""
    return (str(e).strip().splitlines() or [type(e).__name__])[0].rstrip('.')[:200]
