#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Unpacks a package of Debian or Ubuntu into a directory: nothing is installed and no root is needed. A second call
# finds what the first one left.
#
#   debian.sh PACKAGE DIRECTORY [FILE...]      PACKAGE alone; where FILEs are named (usr/bin/promtool), only those
#   debian.sh --with-needs PACKAGE DIRECTORY   PACKAGE and all it depends on that this machine has not installed
set -euo pipefail

fail() {
  echo "reflex_ros: $*" >&2
  exit 1
}

with_needs=no
if [ "${1:-}" = --with-needs ]; then
  with_needs=yes
  shift
fi
[ $# -ge 2 ] || fail "usage: debian.sh [--with-needs] PACKAGE DIRECTORY [FILE...]"
package=$1 directory=$2
shift 2
stamp="$directory/.unpacked-$package" content="$with_needs $*"
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$content" ]; then
  exit 0
fi
for program in apt-get dpkg-deb; do
  command -v "$program" >/dev/null || fail "$package comes from Debian or Ubuntu, and there is no $program here: install $package yourself and put it on PATH."
done

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
work=$(mktemp -d "$directory/.fetching-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/archives/partial" "$work/lists/partial"
# Without these apt-get wants root, or another user who may not read this directory.
apt=(apt-get -qq -o APT::Sandbox::User= -o Debug::NoLocking=1 -o "Dir::Cache::archives=$work/archives")

fetch() { # [OPTION...]
  if [ $with_needs = yes ]; then
    "${apt[@]}" "$@" install --yes --no-install-recommends --download-only "$package"
  else
    (cd "$work/archives" && "${apt[@]}" "$@" download "$package")
  fi
}

# A new machine has no package lists, an old one may have lists that name versions which are gone.
own_lists=(-o "Dir::State::lists=$work/lists")
if ! fetch >/dev/null 2>&1; then
  output=$({ "${apt[@]}" "${own_lists[@]}" -o APT::Update::Post-Invoke= update && fetch "${own_lists[@]}"; } 2>&1) ||
    fail "$package cannot be fetched: ${output##*E: }"
fi

shopt -s nullglob
for archive in "$work"/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$archive" | tar --extract --no-same-owner --directory "$directory" "${@/#/./}"
done
printf '%s' "$content" >"$stamp"
