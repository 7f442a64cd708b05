"""The two exceptions whose messages are written for people: with config keys, and without."""

import contextlib
from collections.abc import Iterator


class InputError(ValueError):
    """A file or a value that a library function cannot use: what, where and what to do.

    It names the function's arguments, never config keys or flags, since a program may have called
    it; a stage puts its key in front by `of_key`. The commands print it as one
    sentence, where any other ValueError is a fault of the program and shows its traceback.
    """


class UserError(InputError):
    """Something that the user of a command can fix, named by its config key, flag or stage."""


@contextlib.contextmanager
def of_key(key: str) -> Iterator[None]:
    """Puts config key `key` in front of the message of an InputError that its value causes.

    A message that begins with an argument of the key's name ("fsdp=3 does not divide ...") gets
    the section alone in front. A UserError, which names its key, passes as it is, and so do other
    ValueErrors, as JAX raises them for a fault of the program.
    """
    try:
        yield
    except UserError:
        raise
    except InputError as error:
        section, _, name = f"config.{key}".rpartition(".")
        front = f"{section}." if str(error).startswith(f"{name}=") else f"config.{key}: "
        raise UserError(f"{front}{error}") from error
