# SPDX-License-Identifier: Apache-2.0
"""`reflex`: run a verb."""

from __future__ import annotations

import os
import select
import sys

from reflex_core.doctor.system import install, wheel_of
from reflex_core.text.suggestions import no_such
from reflex_ros.cli.verbs import VERBS, overview
from reflex_ros.console.program import called

INTERRUPTED = 130
CLOSED = 1  # standard output was closed before everything was written, as by `| head`
OPTIONS = {"--version": "version", "-h": "help", "--help": "help"}


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Exit status 2 for a command line that is not understood."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        print(overview(), file=sys.stderr)
        return 2
    name = OPTIONS.get(arguments[0], arguments[0])
    if name not in VERBS:
        print(f"reflex: {no_such('verb', [name], list(VERBS))}", file=sys.stderr)
        print(f"`{called()} help` lists the verbs.", file=sys.stderr)
        return 2
    try:
        # each verb is imported on its own: doctor must run where serve cannot even be imported
        status = int(VERBS[name].load().main(arguments[1:]))
        sys.stdout.flush()  # a reader that is gone is known here, not when the process ends
        return status
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        return CLOSED
    except ModuleNotFoundError as error:
        wheel = wheel_of(error.name)
        if wheel is None:
            raise
        print(f"reflex {name}: {wheel} is not installed: {install([wheel])}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"reflex {name}: stopped", file=sys.stderr)
        return INTERRUPTED


def _output_is_closed() -> bool:
    """Return whether standard output has no reader left, and if so discard what is still to be written to it."""
    try:
        stream = sys.stdout.fileno()
    except OSError:  # a stream that is no file
        return False
    look = select.poll()
    look.register(stream, 0)
    if not any(event & select.POLLERR for _, event in look.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    return True


if __name__ == "__main__":
    sys.exit(main())
