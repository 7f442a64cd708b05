"""Run by a test in a process of its own: the memory that loading FOLDER takes, in bytes."""

import sys

from jaxtbpr.core import files
from jaxtbpr.diffusion import networks, weights


def status(key):
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines[key].split()[0]) * 1024


def main(folder):
    parts = ("unet", "vae", "text_encoder")
    configs = [files.read_json(f"{folder}/{part}/config.json") for part in parts]
    networks.Networks(networks.make_sizes(*configs)).shapes()  # traced once, for whatever size
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is counted from here
    loaded = weights.load(folder)
    print(status("VmHWM") - before, len(loaded))


if __name__ == "__main__":
    main(*sys.argv[1:])
