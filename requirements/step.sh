#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command that may take long and shows that it is at work: what it does, the seconds so far and the last line of its
# output; on a terminal in one line that is rewritten, elsewhere in a line every 4 s. What the command prints is seen only
# when it fails: then on standard error.
#
#   step.sh WHAT COMMAND...
set -euo pipefail
[ $# -ge 2 ] || {
  echo "reflex_ros: usage: step.sh WHAT COMMAND..." >&2
  exit 1
}
what=$1
shift
every=4 terminal=no
if [ -t 1 ]; then
  every=1 terminal=yes
fi
log=$(mktemp)
SECONDS=0

last_line() {
  tail -n 1 "$log" 2>/dev/null | tr -d '\r\033' | cut -c "1-$1"
}

tick() {
  while sleep $every >/dev/null 2>&1; do
    if [ $terminal = yes ]; then
      printf '\r\033[K%s: %d s  %s' "$what" "$SECONDS" "$(last_line $((${COLUMNS:-80} - ${#what} - 10)))"
    else
      printf '%s: %d s  %s\n' "$what" "$SECONDS" "$(last_line 100)"
    fi
  done
}

end_ticker() {
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  rm -f "$log"
}

echo "$what"
tick &
ticker=$!
trap end_ticker EXIT
status=0
"$@" >"$log" 2>&1 </dev/null || status=$?
[ $terminal = no ] || printf '\r\033[K'
if [ $status = 0 ]; then
  [ $SECONDS -lt 2 ] || echo "$what: done in $SECONDS s"
else
  echo "$what: failed after $SECONDS s"
  cat "$log" >&2
fi
exit $status
