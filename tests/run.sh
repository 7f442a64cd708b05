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
  torch_venv=$venv-torch
  packages=(torch==2.13.0 'transformers==4.57.*' 'diffusers==0.35.2' safetensors numpy pillow)
  if [ "$(cat "$torch_venv/installed" 2>/dev/null)" != "${packages[*]}" ]; then
    echo "installing torch into $torch_venv ..." >&2
    [ -x "$torch_venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$torch_venv"
    "$torch_venv/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}"
    echo "${packages[*]}" >"$torch_venv/installed"
  fi
  export JAXTBPR_TORCH_PYTHON=$torch_venv/bin/python
  exec "$venv/bin/python" -m pytest -m isolated tests/isolated "$@"
fi
"$venv/bin/ruff" check --quiet .
"$venv/bin/ruff" format --check --quiet .
exec "$venv/bin/python" -m pytest -n 2 --dist loadgroup --durations 15 "$@"
