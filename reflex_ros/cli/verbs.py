# SPDX-License-Identifier: Apache-2.0
"""The verbs of `reflex`, in the groups in which its help lists them. Each is a module with `main(argv)` and `parser()`."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from importlib import import_module
from typing import Any

SERVE, PREPARE, LIMIT, LOOK, MANY, SELF = (
    "Serve a policy", "Prepare an export", "Limit and account", "Look at what happened", "Many robots", "This program",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: where it is listed, what it does in one line, and its module in reflex_ros/cli/ if that has another name."""

    name: str
    group: str
    what: str
    module: str = ""

    def load(self) -> Any:
        """Import the module. Ctrl-C meanwhile ends the process at once, as an interrupted import may raise any exception."""
        name = f"reflex_ros.cli.{self.module or self.name.replace('-', '_')}"
        if threading.current_thread() is not threading.main_thread():
            return import_module(name)
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            return import_module(name)
        finally:
            signal.signal(signal.SIGINT, before)


VERBS = {
    verb.name: verb
    for verb in (
        Verb("serve", SERVE, "serve an ONNX export over ROS 2 and HTTP"),
        Verb("demo", SERVE, "let an embedded policy move a simulated arm"),
        Verb("key", SERVE, "keep the API keys of robots and operators"),
        Verb("doctor", SERVE, "check this machine, the policy and the robot's description"),
        Verb("export", PREPARE, "make an ONNX export of a LeRobot checkpoint, compared with LeRobot"),
        Verb("import", PREPARE, "make an export of another program's ONNX export", "import_folder"),
        Verb("manifest", PREPARE, "write hashes and a parity fixture into an export"),
        Verb("calibrate-adaptive", PREPARE, "measure how early an export's denoise loop may stop"),
        Verb("calibrate-prefix", PREPARE, "measure the image threshold of the prefix cache"),
        Verb("guard", LIMIT, "make and check a safety configuration"),
        Verb("audit", LIMIT, "check the hash chain of an audit log"),
        Verb("trace", LOOK, "find, show and view recorded episodes; export a dataset"),
        Verb("replay", LOOK, "run recorded requests against a policy"),
        Verb("ab", LOOK, "compare the two policies of a server, from its traces"),
        Verb("bag", LOOK, "repair a bag whose recorder was killed"),
        Verb("fleet", MANY, "read and change many servers at once"),
        Verb("help", SELF, "show the verbs, or the options of one", "help_verb"),
        Verb("version", SELF, "print the versions of this program and of what it runs on"),
        Verb("completion", SELF, "print a script that completes command lines in bash, zsh or fish"),
    )
}


def overview() -> str:
    """Return what `reflex help` prints: every verb in its group, and what to type first."""
    lines = ["usage: reflex VERB [options]"]
    for group in dict.fromkeys(verb.group for verb in VERBS.values()):
        lines += ["", f"{group}:"]
        lines += [f"  {verb.name:20}{verb.what}" for verb in VERBS.values() if verb.group == group]
    return "\n".join([
        *lines,
        "",
        "examples:",
        "  reflex serve demo --no-ros                     serve the embedded policy on http://127.0.0.1:8000",
        "  reflex serve ./my-export --embodiment franka   serve your own for a robot",
        "  reflex help serve                              list the options of a verb",
    ])  # fmt: skip
