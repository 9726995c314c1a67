# SPDX-License-Identifier: Apache-2.0
"""`reflex`: run a sub-command."""

from __future__ import annotations

import signal
import sys
import threading
from importlib import import_module
from typing import Any

from reflex_core import __version__
from reflex_core.doctor.system import install, wheel_of
from reflex_core.text.suggestions import no_such

INTERRUPTED = 130
COMMANDS = {
    "serve": "serve an ONNX export over ROS 2 and HTTP",
    "demo": "let an embedded policy move a simulated arm",
    "replay": "run recorded requests against a policy",
    "calibrate-adaptive": "measure how early an export's denoise loop may stop",
    "calibrate-prefix": "measure the image threshold of the prefix cache",
    "manifest": "write hashes and a parity fixture into an export",
    "export": "make an ONNX export of a LeRobot checkpoint, compared with LeRobot",
    "import": "make an export of another program's ONNX export",
    "doctor": "check this machine, the policy and the robot's description",
    "guard": "make and check a safety configuration",
    "audit": "check the hash chain of an audit log",
    "ab": "compare the two policies of a server, from its traces",
    "bag": "repair a bag whose recorder was killed",
    "trace": "find, show and view recorded episodes; export a dataset",
}
MODULES = {"import": "import_folder"}  # where a command's name is no name for a module


def main(argv: list[str] | None = None) -> int:
    """Run one sub-command. Exit status 2 for a command line that is not understood."""
    arguments = sys.argv[1:] if argv is None else argv
    first = arguments[0] if arguments else ""
    if first in COMMANDS:
        try:
            # each command is imported on its own: doctor must run where serve cannot even be imported
            command = _imported(f"reflex_ros.cli.{MODULES.get(first, first.replace('-', '_'))}")
            return int(command.main(arguments[1:]))
        except ModuleNotFoundError as error:
            wheel = wheel_of(error.name)
            if wheel is None:
                raise
            print(f"reflex {first}: {wheel} is not installed: {install([wheel])}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"reflex {first}: stopped", file=sys.stderr)
            return INTERRUPTED
    if first == "--version":
        print(f"reflex {__version__}")
        return 0
    if first in ("-h", "--help"):
        print(_usage())
        return 0
    unknown = f"reflex: {no_such('command', [first], COMMANDS)}\n" if first else ""
    print(f"{unknown}{_usage()}", file=sys.stderr)
    return 2


def _imported(name: str) -> Any:
    """Import a module; Ctrl-C meanwhile ends the process at once, as an interrupted import may raise any exception."""
    if threading.current_thread() is not threading.main_thread():
        return import_module(name)
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return import_module(name)
    finally:
        signal.signal(signal.SIGINT, before)


def _usage() -> str:
    lines = ["usage: reflex COMMAND [options]", ""]
    lines += [f"  {name:18} {what}" for name, what in COMMANDS.items()]
    return "\n".join([*lines, "", "reflex COMMAND --help lists the options."])


if __name__ == "__main__":
    sys.exit(main())
