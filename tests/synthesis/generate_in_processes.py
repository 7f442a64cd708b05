"""Stage generate with a diffusion model, in one of several processes that share its records.

    python -m tests.synthesis.generate_in_processes ROOT MODEL PROCESS PROCESSES PORT DIE_AFTER

PROCESSES=0: no other process. DIE_AFTER: dies by SIGKILL when so many images are written, 0: not.
"""

import json
import os
import pathlib
import signal
import sys

import jax

from jaxtbpr.core import compilation
from jaxtbpr.synthesis import diffusion, generate
from tests.synthesis.stages import generation_config, open_workdir

if __name__ == "__main__":
    root, model = pathlib.Path(sys.argv[1]), sys.argv[2]
    process, processes, port, die_after = map(int, sys.argv[3:])
    if processes:
        jax.distributed.initialize(f"localhost:{port}", processes, process)
    compilation.use_cache()
    written, write = [], diffusion.write_image

    def write_and_die(*args):
        written.append(write(*args))
        if len(written) == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return written[-1]

    diffusion.write_image = write_and_die
    print(json.dumps(generate.run(generation_config(model), open_workdir(root))["outputs"]))
