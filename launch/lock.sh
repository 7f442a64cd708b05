#!/usr/bin/env bash
# Updates launch/constraints.txt: the exact version of every package, for all extras, Python
# 3.11 and later. Needs uv (pip install uv). Run it after changing pyproject.toml, then the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
uv pip compile pyproject.toml --universal --python-version 3.11 --extra cuda12 --extra tpu \
  --extra test --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet \
  --output-file launch/constraints.txt "$@"
