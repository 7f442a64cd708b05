"""Stage train in one of several processes that make one mesh, as on several hosts.

    python -m tests.retrieval.train_in_processes ROOT PROCESS PROCESSES PORT STEPS FSDP DIE_AFTER

PROCESSES=0: all devices in this one process. Process 0 asks itself to stop, by SIGTERM, after step
DIE_AFTER, if that is above 0.
"""

import json
import os
import pathlib
import signal
import sys

import jax

from jaxtbpr.core import compilation
from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval import train
from jaxtbpr.retrieval.training.log import TrainLog
from tests.datasets.sets import make_workdir
from tests.retrieval.runs import make_config

if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1])
    process, processes, port, steps, fsdp, die_after = map(int, sys.argv[2:])
    if processes:
        jax.distributed.initialize(f"localhost:{port}", processes, process)
    compilation.use_cache()
    noted = TrainLog.step

    def step(self, n, *args):
        noted(self, n, *args)
        if n == die_after and process == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    TrainLog.step = step
    config = make_config(**{"train.steps": steps, "train.fsdp": fsdp})
    try:
        print(json.dumps(train.run(config, make_workdir(root))["outputs"]))
    except InputError as error:
        sys.exit(f"stopped: {error}")
