"""Runs stage train in a workdir and sends itself a signal right after a step, if one is given."""

import json
import os
import pathlib
import sys

from jaxtbpr.core import compilation
from jaxtbpr.retrieval import train
from jaxtbpr.retrieval.training.log import TrainLog
from tests.datasets.sets import make_workdir
from tests.retrieval.runs import make_config

if __name__ == "__main__":
    compilation.use_cache()
    root, die_after, number = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    noted = TrainLog.step

    def step(self, n, *args):
        noted(self, n, *args)
        if n == die_after:
            os.kill(os.getpid(), number)

    TrainLog.step = step
    print(json.dumps(train.run(make_config(), make_workdir(root))))
