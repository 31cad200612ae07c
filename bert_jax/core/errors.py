"""The one exception that a door turns into a sentence instead of a traceback."""


class UserError(Exception):
    """Something the user can mend; its text is one sentence that says what to do."""
