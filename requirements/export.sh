#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puts torch, LeRobot's policies and what exporting them needs into an environment. A second run installs what changed.
#
#   export.sh constraints           prints the versions: those of constraints.txt, where export/constraints.txt has no other
#   export.sh install PYTHON FILE   installs into PYTHON's environment, held to the versions of FILE
#
# LeRobot 0.6.1 asks for Python 3.12, whose syntax it uses in five places; on 3.11 export/prepare.py rewrites these.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/export
families="act diffusion smolvla pi0 pi05 xvla groot"

fail() {
  echo "reflex_ros: $*" >&2
  exit 1
}

print_constraints() {
  awk -F '[=;]' 'NR == FNR { own[$1]; print; next } /^[^#]/ && !($1 in own)' "$here/constraints.txt" "$here/../constraints.txt"
}

run_pip() { # WHAT PYTHON ARGUMENT...
  local what=$1 python=$2 output
  shift 2
  { output=$(PIP_ROOT_USER_ACTION=ignore PIP_PROGRESS_BAR=off "$here/../step.sh" "$what" "$python" -m pip --disable-pip-version-check --no-input \
    "$@" 2>&1 1>&3); } 3>&1 ||
    fail "\`pip $*\` failed: $(grep -v '^ *$' <<<"$output" | tail -n 1)"
}

import_policies() { # PYTHON
  HF_HUB_OFFLINE=1 "$1" - $families <<'PYTHON'
import sys
import lerobot.policies
from lerobot.policies.factory import get_policy_class
for family in sys.argv[1:]:
    get_policy_class(family)
PYTHON
}

install() { # PYTHON FILE
  local python=$1 constraints=$2 site_packages output
  # pip would hold what comes next to what LeRobot asks for.
  run_pip "removing an older LeRobot" "$python" uninstall --yes lerobot
  run_pip "installing torch and what LeRobot needs (some minutes and 1.5 GB the first time)" "$python" install -c "$constraints" -r "$here/requirements.txt"
  run_pip "installing LeRobot" "$python" install -c "$constraints" --no-deps --no-compile --ignore-requires-python lerobot
  site_packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$python" "$here/prepare.py" "$site_packages"
  output=$(import_policies "$python" 2>&1) || fail "LeRobot is installed and cannot be imported: $(tail -n 1 <<<"$output")"
}

case "${1:-}" in
  constraints) print_constraints ;;
  install) install "$2" "$3" ;;
  *) fail "usage: export.sh constraints | install PYTHON FILE" ;;
esac
