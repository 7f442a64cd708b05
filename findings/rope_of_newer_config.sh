#!/usr/bin/env bash
# A model saved by transformers 5 keeps the base of its rotary positions in `rope_parameters` of
# config.json. transformers 4 opens that file without an error or a warning and takes its own
# default in place of the base, so that the network computes other positions.
#
# Seen with Qwen2 of base 5,000,000, saved by transformers 5.23.0: rope_theta 5000000.0 there, and
#      10000.0 when the same folder is opened by transformers 4.57.6.
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 4.57.6 5.23.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "transformers==$version"
done
"$folder/5.23.0/bin/python" - "$folder/model" <<'PYTHON'
import sys

import transformers

rope = {"rope_type": "default", "rope_theta": 5_000_000.0}
transformers.Qwen2Config(rope_parameters=rope).save_pretrained(sys.argv[1])
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
print(transformers.__version__, config.rope_parameters)
sys.exit(config.rope_parameters["rope_theta"] != 5_000_000)
PYTHON
"$folder/4.57.6/bin/python" - "$folder/model" <<'PYTHON'
import sys
import warnings

import transformers

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    config = transformers.AutoConfig.from_pretrained(sys.argv[1])
print(transformers.__version__, config.rope_theta, [str(one.message) for one in told])
sys.exit(config.rope_theta != 10_000 or bool(told))
PYTHON
