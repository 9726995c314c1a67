#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks for what pip cannot bring. What is missing is installed with apt-get when this runs as root on Debian or
# Ubuntu; otherwise one line names it and the exit status is 1.
#
#   system.sh python [INTERPRETER] [OLDEST]   prints the interpreter to make .venv with: INTERPRETER, else the newest that
#                                             fits; OLDEST (3.10) to 3.12 do
#   system.sh build                           a C and C++ compiler
#   system.sh simulator PYTHON                OpenGL without a screen
#   system.sh qt PYTHON                       what Qt links to, for the tests of the rqt panel
set -euo pipefail

fail() {
  echo "reflex_ros: $*" >&2
  exit 1
}

install_or_fail() { # <what is missing> <package>...
  local what=$1
  shift
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "$what is missing: run \`sudo apt-get install $*\`, then make again."
  fi
  local output
  # what is shown meanwhile goes to standard error, and why it failed into the message
  { output=$("$(dirname "$0")/step.sh" "reflex_ros: $what is missing, installing $*" bash -c 'apt-get -qq update &&
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$@"' apt "$@" 2>&1 1>&3); } 3>&2 ||
    fail "$what is missing and \`apt-get install $*\` failed: ${output##*E: }"
}

# Those that will do; `python` leaves out what is older than OLDEST.
versions=(3.10 3.11 3.12)

version_fits() {
  local version
  version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) &&
    [[ " ${versions[*]} " == *" $version "* ]]
}

named_versions() {
  local listed="${versions[*]}"
  listed=${listed// /, }
  echo "Python ${listed%, *} or ${versions[-1]}"
}

can_make_venv() {
  "$1" -c 'import ensurepip, venv' 2>/dev/null
}

has_headers() {
  "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null
}

is_complete() {
  version_fits "$1" && can_make_venv "$1" && has_headers "$1"
}

find_python() { # [INTERPRETER] [OLDEST]
  local candidates=(python3.12 python3.11 python3.10 python3) candidate version
  # A sourced ROS 2 works with the Python it was built for, which is the system's.
  [ -z "${ROS_DISTRO:-}" ] || candidates=(python3)
  while [ "${versions[0]}" != "${2:-3.10}" ]; do
    versions=("${versions[@]:1}")
  done
  if [ -n "${1:-}" ]; then
    version_fits "$1" || fail "PYTHON=$1 does not run or is not $(named_versions)."
    candidates=("$1")
  fi
  for candidate in "${candidates[@]}"; do
    if is_complete "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  for candidate in "${candidates[@]}"; do
    version_fits "$candidate" || continue
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    install_or_fail "a part of Python $version" "python$version-venv" "python$version-dev"
    is_complete "$candidate" || fail "Python $version cannot make a virtual environment or has no C headers even so."
    echo "$candidate"
    return
  done
  fail "no $(named_versions) was found on PATH; install one, or name it: make PYTHON=/path/to/python3.12"
}

check_build() {
  command -v "${CC:-cc}" >/dev/null && command -v "${CXX:-c++}" >/dev/null || install_or_fail "a C and C++ compiler" g++
}

can_draw() {
  "$1" -c 'from reflex_ros.demo.opengl import choose_backend; choose_backend()' 2>/dev/null
}

check_simulator() {
  can_draw "$1" || install_or_fail "OpenGL without a screen" libegl1 libegl-mesa0 libgl1-mesa-dri
  can_draw "$1" || install_or_fail "OpenGL without a screen" libosmesa6
  can_draw "$1" || fail "no OpenGL without a screen: neither EGL (libegl1 libegl-mesa0 libgl1-mesa-dri) nor OSMesa works here."
}

has_qt() {
  QT_QPA_PLATFORM=offscreen "$1" -c 'from PyQt5 import QtWidgets; QtWidgets.QApplication([])' 2>/dev/null
}

check_qt() {
  local packages=(libgl1 libglib2.0-0 libfontconfig1 libfreetype6 libx11-6 libxext6 fonts-dejavu-core)
  has_qt "$1" || install_or_fail "a library that Qt links to" "${packages[@]}"
  has_qt "$1" || fail "Qt does not start even with ${packages[*]}."
}

case "${1:-}" in
  python) find_python "${2:-}" "${3:-}" ;;
  build) check_build ;;
  simulator) check_simulator "$2" ;;
  qt) check_qt "$2" ;;
  *) fail "usage: system.sh python [INTERPRETER] [OLDEST] | build | simulator PYTHON | qt PYTHON" ;;
esac
