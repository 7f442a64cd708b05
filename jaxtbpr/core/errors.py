"""The one exception whose message is written for the user."""


class UserError(ValueError):
    """Something that the user can mend; the message says what, where and what to do.

    `main` prints it as one sentence, without a traceback, and exits with status 1.
    """
