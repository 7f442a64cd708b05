#!/usr/bin/env bash
# Makes a virtual environment, installs jaxtbpr with its test extra and runs all tests.
#   ./tests/run.sh                      everything
#   ./tests/run.sh tests/retrieval      further words go to pytest
#   ./tests/run.sh --isolated           those that compare with PyTorch, in an environment of its own
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
source "$root/launch/environment.sh"
make_environment "$root" test
cd "$root"
if [ "${1:-}" = --isolated ]; then
  shift
  make_isolated() {  # FOLDER PACKAGE...
    local folder=$1 pip=("$1/bin/python" -m pip install --quiet --disable-pip-version-check)
    shift
    if [ "$(cat "$folder/installed" 2>/dev/null)" != "$*" ]; then
      echo "installing $1 ... into $folder" >&2
      [ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
      "${pip[@]}" "$@"
      echo "$*" >"$folder/installed"
    fi
  }
  make_isolated "$venv-torch" torch==2.13.0 'transformers[serving]==4.57.*' 'diffusers==0.35.2' \
    safetensors numpy pillow
  # Both without all that they need: torchvision must fit torch to the letter, and ultralytics is
  # wanted for its photographs alone.
  "$venv-torch/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    torch-fidelity==0.4.0 easydict==1.13
  make_isolated "$venv-pose" -r jaxtbpr/workers/worker/requirements-pose.txt onnx scikit-image
  "$venv-pose/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    ultralytics==8.4.190
  make_isolated "$venv-newest" torch==2.13.0 'transformers[serving]==5.23.*' \
    diffusers==0.42.1 peft==0.21.2 accelerate==1.15.0 datasets==5.2.0 webdataset==1.0.2 \
    ftfy==6.3.1 safetensors numpy pillow
  "$venv-newest/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    open_clip_torch==3.3.0 timm==1.0.31
  # In a folder apart, since its compiled part needs the CUDA of its wheel: transformers shall not
  # find it, and tests/isolated/open_clip_features.py alone uses what of it is Python.
  if [ ! -d "$venv-newest/torchvision" ]; then
    "$venv-newest/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
      --target "$venv-newest/torchvision" torchvision==0.28.0
  fi
  export JAXTBPR_TORCH_PYTHON=$venv-torch/bin/python
  export JAXTBPR_POSE_PYTHON=$venv-pose/bin/python
  export JAXTBPR_NEWEST_PYTHON=$venv-newest/bin/python
  exec "$venv/bin/python" -m pytest -m isolated tests/isolated "$@"
fi
"$venv/bin/ruff" check --quiet .
"$venv/bin/ruff" format --check --quiet .
exec "$venv/bin/python" -m pytest -n 2 --dist loadgroup --durations 15 "$@"
