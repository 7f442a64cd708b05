#!/usr/bin/env bash
# Makes a virtual environment, installs jaxtbpr with pinned versions and runs the main config.
#   ./launch/local.sh                                     the whole pipeline on configs/syn.py
#   ./launch/local.sh --workdir=/data/run1 --config.train.epochs=4
# Arguments go to `python -m jaxtbpr.main`. VENV (default: .venv in this repository) and
# PYTHON (default: python3) may be set; EXTRAS=cuda12 or EXTRAS=tpu installs that backend.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
source "$root/launch/environment.sh"
make_environment "$root" "${EXTRAS:-}"
case " $* " in
  *" --config="* | *" --config "*) ;;
  *) set -- "--config=$root/configs/syn.py" "$@" ;;
esac
exec "$venv/bin/python" -m jaxtbpr.main "$@"
