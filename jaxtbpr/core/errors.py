"""The one exception whose message is written for the user."""

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """Something that the user can mend; the message says what, where and what to do.

    `main` prints it as one sentence, without a traceback, and exits with status 1.
    """


@contextlib.contextmanager
def of_key(key: str) -> Iterator[None]:
    """Puts config key `key` in front of the message of a UserError that its value leads to."""
    try:
        yield
    except UserError as error:
        raise UserError(f"config.{key}: {error}") from error
