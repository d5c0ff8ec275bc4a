#!/bin/sh
# Checks the Python client: ruff, mypy and the tests, in a virtual environment under target/.
# Needs python3 (3.10 or newer) with venv and pip. Packages are fetched once; later runs fetch nothing.
#
#   clients/python/test.sh [arguments of pytest]
#
# PYTHON: another interpreter. DISTILFACE_BIN: another server binary than target/debug/distilface.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -- "$here/../.." && pwd)
work=${CARGO_TARGET_DIR:-$root/target}/python
venv=$work/venv
mkdir -p "$work"

# The stamp holds what the environment was made from, so a change of either makes it anew.
stamp=$venv/made-from
want=$("${PYTHON:-python3}" --version; cat "$here/pyproject.toml")
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
  rm -rf "$venv"
  if "${PYTHON:-python3}" -m venv "$venv" > "$work/venv.log" 2>&1; then
    set_up="$venv/bin/python -m pip"
  else
    # Debian packs what puts pip into an environment apart; pip outside can install into it as well.
    "${PYTHON:-python3}" -m venv --clear --without-pip "$venv"
    set_up="${PYTHON:-python3} -m pip --python $venv/bin/python"
  fi
  $set_up install --quiet --disable-pip-version-check --editable "$here[test]"
  printf '%s\n' "$want" > "$stamp"
fi

export PYTHONDONTWRITEBYTECODE=1
cd "$here"
"$venv/bin/ruff" check --cache-dir "$work/ruff" .
"$venv/bin/ruff" format --check --cache-dir "$work/ruff" .
"$venv/bin/mypy" --cache-dir "$work/mypy"
exec "$venv/bin/python" -m pytest -o cache_dir="$work/pytest" "$@"
