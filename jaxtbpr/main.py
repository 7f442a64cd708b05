"""`python -m jaxtbpr.main --config=configs/syn.py`: runs a config's stages in a workdir.

Further flags change the config (`--config.train.epochs=4`). No logic lives here.
"""

import os
import re
import signal
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from jaxtbpr.core import command
from jaxtbpr.core.errors import InputError, UserError

# Both are imported where they are used: the worker processes of the stages import this file
# again, and must not wait for JAX.

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,  # `prepare_arguments` fills it in; a default would be read, and its keys defined, twice
    "Config file, an argument follows a colon: configs/syn.py:smoke; default: configs/syn.py.",
    lock_config=False,
    accept_new_attributes=True,  # in tables; `prepare_arguments` has refused all others
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/NAME_OF_CONFIG.")
_WITH = flags.DEFINE_list("with", [], "Stages to run beside those of the config: denoise,measure.")
_KEYS = flags.DEFINE_string("keys", None, "Print the config keys of a section, or all, and stop.")
_RERUN = flags.DEFINE_bool(
    "rerun",
    False,
    "Make stages anew whose config or input has changed, in place of what they made.",
)


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step of theirs
    from jaxtbpr import command_line, pipeline
    from jaxtbpr.core import mesh

    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not a flag; write --config, --config.KEY or --workdir.")
    mesh.split_cpu()
    root = command_line.find_workdir(_WORKDIR.value)
    command_line.add_stages(_CONFIG.value, _WITH.value)
    summary = pipeline.run(_CONFIG.value, root, rerun=_RERUN.value)
    print(command_line.closing_words(summary, root))


def _parse(argv: list[str]) -> list[str]:
    from jaxtbpr import command_line

    if answer := _answer(argv[1:]):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `| head` ends it
        print(answer)
        sys.exit(0)
    argv = command_line.prepare_arguments(argv)
    sys.argv = argv  # ml_collections looks there for the keys that are set
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        if not command_line.is_config_error(error):
            raise
        raise UserError(command_line.explain_config_error(error, argv)) from error
    except Exception as error:  # a config file is the user's program: anything can come of it
        raise UserError(command_line.explain_config_error(error, argv)) from error


def _answer(argv: list[str]) -> str:
    """What --help and --keys print, "" where neither is asked for."""
    from jaxtbpr import command_line

    if {"--help", "-h", "-help"} & set(argv):
        stages = f"Stages:\n{command_line.stages_table()}"
        keys = "--keys=train prints the config keys of a section, --keys those of all."
        return f"{__doc__}\n{stages}\n\n{keys}\n{flags.FLAGS.main_module_help()}"
    key_options = [argument for argument in argv if re.match(r"--?keys(=|$)", argument)]
    if not key_options:
        return ""
    after = argv[argv.index(key_options[-1]) + 1 :]
    section = key_options[-1].partition("=")[2] or next(iter(after), "")
    return command_line.keys_table(section)


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
    except (InputError, flags.Error) as error:
        if command.wants_traceback():
            raise
        sys.exit(f"jaxtbpr: {error}")
