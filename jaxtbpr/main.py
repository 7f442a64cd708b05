"""`jaxtbpr run --config=configs/syn.py`: runs a config's stages in a workdir.

`python -m jaxtbpr.main` is the same. Further flags change the config
(`--config.train.epochs=4`). No logic lives here.
"""

import os
import re
import signal
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from jaxtbpr.core import command
from jaxtbpr.core.errors import InputError, UserError

# `command_line` and `pipeline` are imported where they are used: worker processes import this file
# again, and must not wait for JAX.

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,  # `prepare_arguments` fills it in; a default would be read, and its keys defined, twice
    "Config file, with its argument after a colon: configs/syn.py:smoke; default: configs/syn.py.",
    lock_config=False,
    accept_new_attributes=True,  # in tables; `prepare_arguments` has refused all others
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/NAME_OF_CONFIG.")
_WITH = flags.DEFINE_list("with", [], "Stages to run besides those of the config: denoise,measure.")
_KEYS = flags.DEFINE_string(
    "keys", None, "Print the config keys of a section, or of all, and exit."
)
_RERUN = flags.DEFINE_bool(
    "rerun",
    False,
    "Run stages again whose config or input has changed, and replace their results.",
)


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax and TFDS log every step
    from jaxtbpr import command_line, pipeline
    from jaxtbpr.core import mesh

    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not a flag; write --config, --config.KEY or --workdir.")
    mesh.split_cpu()
    root = command_line.find_workdir(_WORKDIR.value)
    command_line.add_stages(_CONFIG.value, _WITH.value)
    summary = pipeline.run(_CONFIG.value, root, rerun=_RERUN.value)
    print(command_line.final_lines(summary, root))


def _parse(argv: list[str]) -> list[str]:
    from jaxtbpr import command_line

    if answer := _answer(argv[1:]):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `| head` works
        print(answer)
        sys.exit(0)
    argv = command_line.prepare_arguments(argv)
    sys.argv = argv  # ml_collections reads the overridden keys from it
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        if not command_line.is_config_error(error):
            raise
        raise UserError(command_line.explain_config_error(error, argv)) from error
    except Exception as error:  # a config file is a program: it can raise anything
        raise UserError(command_line.explain_config_error(error, argv)) from error


def _answer(argv: list[str]) -> str:
    """The output of --help or --keys, "" where neither is given."""
    from jaxtbpr import command_line

    if {"--help", "-h", "-help"} & set(argv):
        stages = f"Stages:\n{command_line.stages_table()}"
        keys = "--keys=train prints the config keys of a section, --keys those of all."
        return f"{__doc__ or ''}\n{stages}\n\n{keys}\n{flags.FLAGS.main_module_help()}"
    key_options = [argument for argument in argv if re.match(r"--?keys(=|$)", argument)]
    if not key_options:
        return ""
    after = argv[argv.index(key_options[-1]) + 1 :]
    section = key_options[-1].partition("=")[2] or next(iter(after), "")
    return command_line.keys_table(section)


def _stop(*_: object) -> None:
    # At once, as if killed, which every stage survives: an exception could be raised in a callback
    # that swallows it, and a running step may crash a slower exit.
    os.write(2, b"\njaxtbpr: stopped; rerun the same command to resume.\n")
    os._exit(130)  # the exit status of Ctrl-C in shells


COMMAND = "run", "run the stages of a config in a workdir"

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of background jobs
        signal.signal(signal.SIGINT, _stop)
    try:
        app.run(main, flags_parser=_parse)
    except (InputError, flags.Error) as error:
        if command.wants_traceback():
            raise
        sys.exit(f"jaxtbpr: {error}")
