"""Stage generate: one image for each prompt (SynTBPR, inter-class generation).

Every image is an identity of its own, as in the paper. Engine `render` draws the attributes.
"""

from ml_collections import ConfigDict

from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.core.workers import process_map
from jaxtbpr.synthesis.images import RenderEngine

OPTIONS: Options = {
    "engine": Option("render", "what makes the images", choices=("render",)),
    "height": Option(128, "height of the images in pixels", low=16, high=4096),
    "width": Option(64, "width of the images in pixels", low=16, high=4096),
    "processes": Option(0, "worker processes; 0: one per core", low=0, runtime=True),
}


def run(config: ConfigDict, workdir: Workdir) -> dict:
    """Writes an image for each record of the manifest before it."""
    options = config.generate
    engine = RenderEngine(str(workdir.root), "generate", config.seed, options.height, options.width)
    with process_map(options.processes) as mapped:
        return workdir.map_stage("generate", lambda records: ([r] for r in mapped(engine, records)))
