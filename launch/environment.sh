# Sourced by the scripts: make_environment ROOT EXTRAS leaves a ready environment in $venv.

# On CPUs each step allocates its arrays anew, which is faster with huge pages (glibc 2.35 and newer;
# older ones ignore this). A value set by the user is kept.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

make_environment() {
  local root=$1 extras=$2 python=${PYTHON:-python3} pins had
  venv=${VENV:-$root/.venv}
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "jaxtbpr needs Python 3.11 or newer, but $python is $("$python" -V 2>&1);" \
      "set PYTHON=/path/to/python3.11" >&2
    exit 1
  fi
  # Skip if installed with these pins and at least these extras; more extras stay installed.
  pins="$root $(cat "$root/pyproject.toml" "$root/launch/constraints.txt" | cksum)"
  had=$(sed -n 2p "$venv/installed" 2>/dev/null || true)
  extras=$(tr , '\n' <<<"${had%.},$extras" | sed '/^$/d' | sort -u | paste -sd , -)
  if [ "$(cat "$venv/installed" 2>/dev/null)" = "$pins"$'\n'"$extras." ]; then
    return
  fi
  echo "installing jaxtbpr${extras:+[$extras]} into $venv (a few minutes the first time) ..." >&2
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || {
    echo "$python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2
    exit 1
  }
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$root/launch/constraints.txt" --editable "$root${extras:+[$extras]}"
  printf '%s\n' "$pins" "$extras." >"$venv/installed"
}
