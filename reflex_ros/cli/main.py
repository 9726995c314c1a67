# SPDX-License-Identifier: Apache-2.0
"""`reflex serve|replay|doctor`."""

from __future__ import annotations

import sys
from importlib import import_module

from reflex_core import __version__

COMMANDS = {
    "serve": "serve an ONNX export over ROS 2 and HTTP",
    "replay": "run recorded requests against a policy",
    "calibrate-adaptive": "measure how early an export's denoise loop may stop",
    "doctor": "check this machine, the policy and the robot's description",
    "guard": "make and check the safety configuration of a robot",
    "audit": "check the hash chain of an audit log",
    "ab": "compare the two policies of a server, from its traces",
    "bag": "make a bag whole that was cut off",
    "trace": "make a dataset to train with from traces",
}


def main(argv: list[str] | None = None) -> int:
    """Run one sub-command. Exit status 2 for a command line that is not understood."""
    arguments = sys.argv[1:] if argv is None else argv
    first = arguments[0] if arguments else ""
    if first in COMMANDS:
        # each command is imported on its own: doctor must run where serve cannot even be imported
        return int(import_module(f"reflex_ros.cli.{first.replace('-', '_')}").main(arguments[1:]))
    if first == "--version":
        print(f"reflex {__version__}")
        return 0
    if first in ("-h", "--help"):
        print(_usage())
        return 0
    print(_usage() if not first else f"reflex: no command {first[:80]!r}\n{_usage()}", file=sys.stderr)
    return 2


def _usage() -> str:
    lines = ["usage: reflex COMMAND [options]", ""]
    lines += [f"  {name:18} {what}" for name, what in COMMANDS.items()]
    return "\n".join([*lines, "", "reflex COMMAND --help lists the options."])


if __name__ == "__main__":
    sys.exit(main())
