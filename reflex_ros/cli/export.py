# SPDX-License-Identifier: Apache-2.0
"""`reflex export`: an ONNX export of a LeRobot checkpoint, compared with LeRobot itself (docs/how-to/export-a-checkpoint.md).

`reflex export seal`, the former spelling of `reflex manifest`, works for one release more.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from reflex_core.errors import ReflexError
from reflex_export.documents.verification_page import verdict
from reflex_export.export import run, torch_side
from reflex_export.families.table import FAMILIES
from reflex_export.options import (
    DTYPES,
    FP32,
    LEAST_OBSERVATIONS,
    OBSERVATIONS,
    TOLERANCES,
    UNITS,
    ExportOptions,
)
from reflex_export.result import Result
from reflex_ros.cli import manifest
from reflex_ros.cli.argument_types import comma_separated, finite, positive, rate_hz, seed
from reflex_ros.cli.parser import Parser
from reflex_ros.console.terminal import Bar

FORMER = "seal"  # `reflex export seal FOLDER` of the first version
VERIFIED, REFUSED, NOT_VERIFIED = 0, 2, 3
SIGNALLED = 128  # and the number of the signal
MOST_OBSERVATIONS = 1000


def main(argv: list[str] | None = None) -> int:
    """Export. 0: verified; 2: refused, and nothing was written; 3: written, but it differs from LeRobot."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == [FORMER]:
        print(
            f"reflex export {FORMER} is now `reflex manifest FOLDER`; this spelling goes in the next release",
            file=sys.stderr,
        )
        return manifest.main(arguments[1:])
    given = parser().parse_args(arguments)
    bar = Bar(plain=_say)

    def say(line: str) -> None:
        bar.clear()
        _say(line)

    try:
        with _cleaned_up_when_terminated():
            result = run(given.checkpoint, given.out, _options(given), say, bar.draw, torch_side)
    except (ReflexError, OSError) as error:
        bar.clear()
        print(f"reflex export: {error}", file=sys.stderr)
        return REFUSED
    finally:
        bar.clear()
    return _ended(result)


def parser() -> Parser:
    """Return the command line of `reflex export`."""
    made = Parser(
        prog="reflex export",
        description="Turn a policy that LeRobot trained into a folder that `reflex serve` takes, and compare it with LeRobot's"
        f" own answers. Exported are policies of type {', '.join(FAMILIES)}. This needs torch and LeRobot: pip install"
        " 'reflex_ros[export]'; serving needs neither.",
        epilog="exit status: 0 verified, 2 refused, and nothing was written, 3 written, but it differs from LeRobot",
        examples=(
            "reflex export outputs/train/act_so101 ./act_so101 --dataset ~/data/so101_pick --units degrees",
            "reflex export lerobot/smolvla_base ./smolvla --dtype fp16 --tolerance 0.01",
        ),
    )
    made.add_argument(
        "checkpoint", metavar="CHECKPOINT",
        help="folder with config.json and model.safetensors, a training run around it, or a name on the Hugging Face hub",
    )  # fmt: skip
    made.add_argument(
        "out", metavar="OUT", nargs="?", type=Path,
        help="folder that is made; default: the policy's name with _export behind it, here",
    )  # fmt: skip
    _add_robot(made.add_argument_group("what no checkpoint holds"))
    _add_graphs(made.add_argument_group("the graphs"))
    _add_comparison(made.add_argument_group("the comparison with LeRobot"))
    made.add_argument("--force", action="store_true", help="replace an export that is there")
    return made


def _add_robot(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset", type=Path, metavar="DIR",
        help="LeRobot data set of the training, or its meta/info.json: names of joints, rate, kind of robot",
    )  # fmt: skip
    group.add_argument(
        "--names",
        type=comma_separated,
        default=(),
        metavar="A,B,...",
        help="names of the actions, in their order",
    )
    group.add_argument("--fps", type=rate_hz, metavar="HZ", help="control rate")
    group.add_argument(
        "--units", type=comma_separated, default=(), metavar="UNIT[,UNIT...]",
        help=f"of states and actions, one for all or one for each: {', '.join(UNITS)} (-100 to 100)",
    )  # fmt: skip
    group.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="folder with the tokenizer.json of the language model"
    )
    group.add_argument(
        "--vlm", type=Path, metavar="DIR", help="folder with the config.json of SmolVLA's language model"
    )


def _add_graphs(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--dtype", choices=DTYPES, default=FP32, help="of the weights")
    group.add_argument(
        "--fused",
        action="store_true",
        help="one graph with the whole denoise loop, for policies with equal steps",
    )
    group.add_argument(
        "--bars", type=finite, metavar="VALUE",
        help="around scaled images of pi0 and pi0.5: -3 for a policy that LeRobot 0.4.0 to 0.4.4 trained",
    )  # fmt: skip
    group.add_argument(
        "--resize-cameras", action="store_true",
        help="let the server scale images for ACT and Diffusion Policy, which were trained with one size",
    )  # fmt: skip


def _add_comparison(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--observations", type=_count, metavar="N",
        help=f"how many are compared [default: {OBSERVATIONS}; down to {LEAST_OBSERVATIONS} where an answer takes many steps]",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=seed, metavar="N", default=0, help="of these observations and their noise"
    )
    tolerances = ", ".join(f"{tolerance:g} for {dtype}" for dtype, tolerance in TOLERANCES.items())
    group.add_argument(
        "--tolerance", type=positive, metavar="X",
        help=f"largest difference that counts as verified, in the robot's units [default: {tolerances}]",
    )  # fmt: skip


def _options(given: argparse.Namespace) -> ExportOptions:
    return ExportOptions(
        dtype=given.dtype,
        fused=given.fused,
        observations=given.observations,
        seed=given.seed,
        bars=given.bars,
        tokenizer=given.tokenizer,
        vlm=given.vlm,
        dataset=given.dataset,
        names=given.names,
        fps=given.fps,
        units=given.units,
        tolerance=given.tolerance,
        resize_cameras=given.resize_cameras,
        force=given.force,
    )


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST_OBSERVATIONS:
        raise argparse.ArgumentTypeError(f"must lie between 1 and {MOST_OBSERVATIONS}, got {text}")
    return value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _ended(result: Result) -> int:
    """Print what was written and what to do next, and return the exit status."""
    spent = f"{result.seconds:.0f} s, at most {result.peak_bytes // 1_000_000} MB of memory"
    if not result.verification.verified:
        print(f"reflex export: {verdict(result.verification)}", file=sys.stderr)
        print(
            f"{result.folder}: {spent}; its VERIFICATION.md says stage by stage where it differs",
            file=sys.stderr,
        )
        return NOT_VERIFIED
    print(verdict(result.verification))
    print(f"{result.folder}: {spent}")
    print(f"next: fill in {result.folder / 'embodiment.json'} (or name the robot with --embodiment), then")
    print(f"  reflex serve {shlex.quote(str(result.folder))}")
    return VERIFIED


@contextmanager
def _cleaned_up_when_terminated() -> Iterator[None]:
    """Let SIGTERM, and a terminal that is closed, end the process as an exception, so that what was begun is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(SIGNALLED + number)

    # nohup has a closed terminal ignored, and so it stays
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    taken = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in taken:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


if __name__ == "__main__":
    sys.exit(main())
