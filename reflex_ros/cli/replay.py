# SPDX-License-Identifier: Apache-2.0
"""`reflex replay`: run the requests of a trace against a policy and compare the answers (docs/reference/replay.md)."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from reflex_core.errors import ConfigurationError
from reflex_core.records.trace.parse import TraceError
from reflex_core.replay.comparison import LATENCY, Source
from reflex_core.replay.diff_report import Report, summary_document, writing
from reflex_core.replay.plot_data import Kept, watched
from reflex_core.replay.plots import draw, prepare, units_of
from reflex_core.replay.recorded_images import ImageFiles
from reflex_core.replay.runner import (
    Plan,
    failed,
    hashes_of,
    replay,
    require_images,
    why_left_out,
)
from reflex_core.replay.sources import open_source
from reflex_core.replay.summary import Totals
from reflex_core.replay.target import FALLBACK_SEED, PolicyTarget, Wanted, load_target
from reflex_core.review.episode_survey import survey
from reflex_core.review.selection import OnlyEpisodes
from reflex_core.text.untrusted import printable
from reflex_ros.cli import replay_publish
from reflex_ros.cli.replay_console import header_lines, request_line, shown, summary_lines
from reflex_ros.cli.replay_options import STDOUT, parser, plan_of
from reflex_ros.cli.trace_options import selection_of
from reflex_ros.console.ros_args import split_ros_args
from reflex_ros.console.terminal import Bar

PASSED, TRACE_ERROR, TARGET_ERROR, FAILED, INTERRUPTED = 0, 1, 2, 3, 130
SLOT_B = "b"


def main(argv: list[str] | None = None) -> int:
    """Replay a trace.

    0: done; 1: the trace, or the command line, is not right, or nothing could be compared; 2: the policy cannot be
    loaded; 3: what --fail-on names has failed.
    """
    logging.getLogger("reflex_core").addHandler(logging.NullHandler())  # what matters is printed here
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without arrows must not end a replay
    own, ros_args = split_ros_args(sys.argv[1:] if argv is None else argv)
    try:
        options = parser().parse_args(own)
        plan = plan_of(options, ros_args)
    except SystemExit as stop:  # 2 says that the target did not load
        return PASSED if stop.code in (0, None) else TRACE_ERROR
    except ValueError as error:
        return _refused(error, TRACE_ERROR)
    try:
        status = _done(options, plan, ros_args)
        sys.stdout.flush()  # what does not fit on a disk is known here, not when the process ends
        return status
    except KeyboardInterrupt:
        return _refused("stopped", INTERRUPTED)
    except OSError as error:
        _drop_output()
        if isinstance(error, BrokenPipeError):
            return TRACE_ERROR
        where = f"{error.filename}: " if error.filename else "the output cannot be written: "
        return _refused(f"{where}{error.strerror or error}", TRACE_ERROR)


def _done(options: argparse.Namespace, plan: Plan, ros_args: Sequence[str]) -> int:
    try:
        if options.publish:
            return replay_publish.publish(options, ros_args, _open_bag)
        return _inspect(options) if options.no_replay else _replay(options, plan)
    except TraceError as error:
        return _refused(error, TRACE_ERROR)
    except ConfigurationError as error:
        return _refused(error, TARGET_ERROR)


def _drop_output() -> None:
    """Discard buffered output, else closing the stream raises again."""
    with suppress(OSError):  # a stream that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refused(reason: object, status: int) -> int:
    with suppress(OSError):  # the status says it where standard error is on the same full disk
        print(f"reflex replay: {printable(str(reason))}", file=sys.stderr)
    return status


def _open_bag(path: Path) -> Source:
    from reflex_ros.bag.source import BagSource  # a trace is replayed without what reads bags

    return BagSource(path)


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[Source]:
    """Open the recording, less the episodes that are not wanted. Raises TraceError."""
    wanted = selection_of(options)
    if wanted.everything:
        with open_source(options.trace, _open_bag) as source:
            yield source
        return
    with open_source(options.trace, _open_bag) as source:
        found = survey(source)
    names = frozenset(episode.episode_id for episode in found.episodes if wanted.takes(episode))
    if not names:
        raise TraceError(
            f"{options.trace}: none of its {len(found.episodes)} episodes matches {wanted.words()}: `reflex trace ls` lists them"
        )
    with open_source(options.trace, _open_bag) as source:
        yield OnlyEpisodes(source, names)


def _inspect(options: argparse.Namespace) -> int:
    """Run --no-replay: print the contents of the trace."""
    with _opened(options) as source, _report(options, source.header) as report:
        out = _out(options)
        _head(options, source.header, out)
        kinds, slots, seeds = Counter[str](), Counter[str](), 0
        bar, count = Bar(), 0
        for count, record in enumerate(source, start=1):
            kinds[why_left_out(record) or "policy"] += 1
            slots[record.slot] += 1
            seeds += record.seed is not None
            bar.draw(source.fraction, count)
        bar.clear()
        print(f"records: {count}{_ending(source)}", file=out)
        for name, counted in (("answered by", kinds), ("slots", slots)):
            message = ", ".join(f"{shown(kind)} {number}" for kind, number in sorted(counted.items()))
            print(f"  {name}: {message or 'none'}", file=out)
        print(f"  with a recorded seed: {seeds}", file=out)
        _warn(source.warnings, out)
        status = TRACE_ERROR if source.damage and not options.allow_damage else PASSED
        if report is not None:
            report.finish({
                "trace_file": str(options.trace), "exit_code": status, "n_records": count,
                "n_answered_by": dict(kinds), "n_slots": dict(slots), "n_with_seed": seeds,
                "warnings": list(source.warnings),
            })  # fmt: skip
        return status


def _ending(source: Source) -> str:
    """Return how a trace ended; bags have no footer that shows it."""
    if not hasattr(source, "footer"):
        return ""
    return " (with footer)" if source.footer is not None and not source.damage else " (without footer)"


def _replay(options: argparse.Namespace, plan: Plan) -> int:
    images = ImageFiles(options.images) if options.images else None
    if options.plot:
        prepare(options.plot)
    with _opened(options) as source:
        out = _out(options)
        _head(options, source.header, out)
        targets = _targets(options, source.header, images, out)
        if any(target.needs_images for target in targets.values()):
            require_images(source.header, options.trace, has_files=images is not None)
        kept = Kept(plan.tolerances) if options.plot else None
        with _report(options, source.header) as report:
            status = _run(options, plan, source, targets, report, kept)
        if kept is not None:
            binding = targets[""].policy.binding
            units = units_of(binding.embodiment, binding.action_names)
            print(draw(kept, options.plot, plan.tolerances, units), file=out)
        return status


def _run(
    options: argparse.Namespace, plan: Plan, source: Source, targets: Mapping[str, PolicyTarget],
    report: Report | None, kept: Kept | None,
) -> int:  # fmt: skip
    out, bar, totals = _out(options), Bar(), Totals()
    print(f"Replaying requests (--n={plan.limit or 'all'}, --diff={options.diff}):", file=out)
    broken: TraceError | None = None
    try:
        for made in replay(source, watched(targets, kept), plan, totals):
            bar.clear()
            print(request_line(made), file=out)
            bar.draw(source.fraction, totals.records)
            if report is not None:
                report.add(made, plan.tolerances)
    except TraceError as error:  # what was read before it is still worth a summary
        broken = error
    bar.clear()
    print("", *summary_lines(totals, plan), sep="\n", file=out)
    notes = [*source.warnings, *_notes(options, plan, source.header, totals, targets)]
    _warn(notes, out)
    status = _status(options, plan, source, totals, broken)
    if report is not None:
        facts: dict[str, Any] = {
            "trace_file": str(options.trace), "model": str(options.model), "model_b": _text(options.model_b),
            "exit_code": status, "warnings": [*_of_targets(targets), *notes], "error": _text(broken),
        }  # fmt: skip
        report.finish(summary_document(totals, plan, **facts))
    if broken is not None:
        return _refused(broken, status)
    if status == TRACE_ERROR and totals.compared == 0:
        return _refused(f"{options.trace}: nothing could be compared", status)
    if status == TRACE_ERROR:
        return _refused(f"{options.trace}: is damaged; --allow-damage takes what is left of it", status)
    return status


def _status(
    options: argparse.Namespace, plan: Plan, source: Source, totals: Totals, broken: TraceError | None
) -> int:
    """Return the exit status: an unreadable trace outranks a difference, a difference outranks a torn end."""
    if broken is not None:
        return TRACE_ERROR
    if failed(totals, plan):
        return FAILED
    if totals.compared == 0 or (source.damage and not options.allow_damage):
        return TRACE_ERROR
    return PASSED


def _targets(
    options: argparse.Namespace, header: Mapping[str, Any], images: ImageFiles | None, out: Any
) -> dict[str, PolicyTarget]:
    """Return the policies by slot, "" for all others; only requests of slot b can go to another export."""
    wanted = Wanted(
        options.model, options.device, options.embodiment, options.custom_embodiment_config, options.seed,
        images=images,
    )  # fmt: skip
    print(f"Loading target model: {options.model}", file=out)
    targets = {"": load_target(wanted, header, hashes_of(header, "a"))}
    if options.model_b is not None:
        print(f"Loading target model of slot b: {options.model_b}", file=out)
        wanted = replace(wanted, export_dir=options.model_b)
        targets[SLOT_B] = load_target(wanted, header, hashes_of(header, SLOT_B))
    elif hashes_of(header, SLOT_B)[0] != hashes_of(header, "a")[0]:
        _warn(
            ["slot b was recorded with another model; without --model-b it is replayed on --model too"], out
        )
    _warn(_of_targets(targets), out)
    return targets


def _of_targets(targets: Mapping[str, PolicyTarget]) -> list[str]:
    """Return differences from the recorded set-up, each sentence once."""
    return list(dict.fromkeys(note for target in targets.values() for note in target.notes))


def _notes(
    options: argparse.Namespace, plan: Plan, header: Mapping[str, Any], totals: Totals,
    targets: Mapping[str, PolicyTarget],
) -> Iterator[str]:  # fmt: skip
    versions = header.get("versions")
    if (
        LATENCY in plan.modes
        and isinstance(versions, dict)
        and versions.get("platform") != platform.platform()
    ):
        yield f"recorded on {shown(versions.get('platform'))}, another machine: latencies say little"
    if options.seed is not None:
        yield f"the start noise was drawn from seed {options.seed} for every request, not as recorded"
    elif totals.without_seed:
        yield (
            f"the noise of {totals.without_seed} requests was not recorded: they were replayed with seed"
            f" {FALLBACK_SEED}, so a policy that starts from noise differs"
        )
    lost = sum(target.carry_over.lost for target in targets.values())
    if lost:
        yield f"{lost} chunks were guided by one, or averaged with one, that is not in the trace before them: they were replayed without"


def _head(options: argparse.Namespace, header: Mapping[str, Any], out: Any) -> None:
    print(f"Replay: {options.trace}", *header_lines(header), sep="\n", file=out)


def _warn(sentences: Any, out: Any) -> None:
    for sentence in sentences:
        print(f"WARN: {printable(sentence)}", file=out)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _out(options: argparse.Namespace) -> Any:
    """Return the stream for people: standard output, unless the report goes there."""
    return sys.stderr if options.output == STDOUT else sys.stdout


@contextmanager
def _report(options: argparse.Namespace, header: Mapping[str, Any]) -> Iterator[Report | None]:
    """Open the report, if requested. A file gets its name when it is complete. Raises TraceError if it cannot be written."""
    if not options.output:
        yield None
        return
    if options.output == STDOUT:
        yield Report(sys.stdout.buffer, header)
        return
    path = Path(options.output)
    # a pipe or a device has no neighbour that could take its name
    part = path.with_name(f"{path.name}.part") if path.is_file() or not path.exists() else path
    try:
        with writing(path):
            stream = part.open("wb")
        try:
            yield Report(stream, header, path)
        finally:
            with writing(path):
                stream.close()
        with writing(path):
            part.replace(path)
    finally:
        if part != path:
            part.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
