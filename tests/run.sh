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
# A file's tests share what its fixtures make and what they compile: one process runs them all.
# tests/conftest.py says which files come first.
pytest=("$venv/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 15)
if [ "${1:-}" = --isolated ]; then
  shift
  # Little of what is installed is ever imported: nothing is compiled before it is.
  add() { # FOLDER PACKAGE...
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "${@:2}"
  }
  make_isolated() { # FOLDER PACKAGE...
    local folder=$1
    shift
    if [ "$(cat "$folder/installed" 2>/dev/null)" != "$*" ]; then
      echo "installing $1 ... into $folder" >&2
      [ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
      add "$folder" "$@"
      echo "$*" >"$folder/installed"
    fi
  }
  # Beside those two, which share what is downloaded.
  {
    make_isolated "$venv-pose" -r jaxtbpr/workers/worker/requirements-pose.txt onnx scikit-image
    add "$venv-pose" --no-deps ultralytics==8.4.190 # wanted for its photographs alone
  } &
  make_isolated "$venv-torch" torch==2.13.0 'transformers[serving]==4.57.*' 'diffusers==0.35.2' \
    safetensors numpy pillow
  # Without all that it needs: torchvision must fit torch to the letter.
  add "$venv-torch" --no-deps torch-fidelity==0.4.0 easydict==1.13
  make_isolated "$venv-newest" torch==2.13.0 'transformers[serving]==5.23.*' \
    diffusers==0.42.1 peft==0.21.2 accelerate==1.15.0 datasets==5.2.0 webdataset==1.0.2 \
    ftfy==6.3.1 safetensors numpy pillow
  add "$venv-newest" --no-deps open_clip_torch==3.3.0 timm==1.0.31
  # In a folder apart, since its compiled part needs the CUDA of its wheel: transformers shall not
  # find it, and tests/isolated/open_clip_features.py alone uses what of it is Python.
  if [ ! -d "$venv-newest/torchvision" ]; then
    add "$venv-newest" --no-deps --target "$venv-newest/torchvision" torchvision==0.28.0
  fi
  wait $! # for the first, which must have gone well, too
  export JAXTBPR_TORCH_PYTHON=$venv-torch/bin/python
  export JAXTBPR_POSE_PYTHON=$venv-pose/bin/python
  export JAXTBPR_NEWEST_PYTHON=$venv-newest/bin/python
  exec "${pytest[@]}" -m isolated tests/isolated "$@"
fi
"$venv/bin/ruff" check --quiet .
"$venv/bin/ruff" format --check --quiet .
"$venv/bin/pyright" --pythonpath "$venv/bin/python" >&2
exec "${pytest[@]}" "$@"
