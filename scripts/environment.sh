# Sourced by quickstart.sh and test.sh: makes .venv beside the repository's files and installs uapgen into it, once a version of pyproject.toml.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
python=${PYTHON:-python3}
venv=${UAPGEN_VENV:-$root/.venv}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "uapgen needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Set PYTHON=/path/to/python3" >&2
  exit 3
}
install() { # install EXTRAS
  local stamp="$venv/.installed-$1" have
  have=$(cat pyproject.toml setup.py | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" = "$have" ] && return
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  echo "installing uapgen[$1] into $venv (torch is large: minutes on a slow line)" >&2
  "$venv/bin/python" -m pip install -q --disable-pip-version-check -e ".[$1]"
  echo "$have" >"$stamp"
}
