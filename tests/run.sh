#!/usr/bin/env bash
# Makes a virtual environment, installs jaxtbpr with its test extra and runs all tests.
#   ./tests/run.sh                      everything
#   ./tests/run.sh tests/retrieval      further words go to pytest
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
source "$root/launch/environment.sh"
make_environment "$root" test
cd "$root"
"$venv/bin/ruff" check --quiet .
"$venv/bin/ruff" format --check --quiet .
exec "$venv/bin/python" -m pytest -n 2 --dist loadgroup --durations 15 "$@"
