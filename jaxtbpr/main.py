"""`python -m jaxtbpr.main --config=configs/syn.py`: runs a config's stages in a workdir.

Further flags change the config (`--config.train.epochs=4`). No logic lives here.
"""

import os
import signal
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from jaxtbpr.core.errors import UserError

# `pipeline` is imported where it is used: the worker processes of the stages import this file
# again, and must not wait for JAX.

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,  # `prepare_arguments` fills it in; a default would be read, and its keys defined, twice
    "Config file, an argument follows a colon: configs/syn.py:smoke; default: configs/syn.py.",
    lock_config=False,
    accept_new_attributes=True,  # in tables; `prepare_arguments` has refused all others
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/NAME_OF_CONFIG.")
_RERUN = flags.DEFINE_bool(
    "rerun",
    False,
    "Make stages anew whose config or input has changed, in place of what they made.",
)


def main(words: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step of theirs
    from jaxtbpr import pipeline
    from jaxtbpr.core import mesh

    if len(words) > 1:
        raise UserError(f"{words[1]!r} is not a flag; write --config, --config.KEY or --workdir.")
    mesh.split_cpu()
    root = pipeline.find_workdir(_WORKDIR.value)
    summary = pipeline.run(_CONFIG.value, root, rerun=_RERUN.value)
    print(pipeline.closing_words(summary, root))


def _parse(argv: list[str]) -> list[str]:
    from jaxtbpr import pipeline

    words = pipeline.prepare_arguments(argv)
    sys.argv = words  # ml_collections looks there for the keys that are set
    try:
        return flags.FLAGS(words)
    except flags.Error as error:
        if not pipeline.is_config_error(error):
            raise
        raise UserError(pipeline.explain_config_error(error, words)) from error
    except Exception as error:  # a config file is the user's program: anything can come of it
        raise UserError(pipeline.explain_config_error(error, words)) from error


def _stop(*_: object) -> None:
    # At once, as if killed, which every stage is made for: an exception could be raised in a
    # callback that swallows it, and a step that still computes may crash a slower end.
    os.write(2, b"\njaxtbpr: stopped; the same command goes on from here.\n")
    os._exit(130)  # as shells tell Ctrl-C


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of background jobs
        signal.signal(signal.SIGINT, _stop)
    try:
        app.run(main, flags_parser=_parse)
    except (UserError, flags.Error) as error:
        sys.exit(f"jaxtbpr: {error}")
