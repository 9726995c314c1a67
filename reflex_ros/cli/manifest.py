# SPDX-License-Identifier: Apache-2.0
"""`reflex manifest`: hashes and a parity fixture for an export, so that `reflex doctor` can compare elsewhere."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reflex_core.doctor.export_files import MANIFEST
from reflex_core.doctor.manifest import shipped_files, write_manifest, write_manifest_again
from reflex_core.doctor.parity import FIXTURE, TOLERANCE
from reflex_core.errors import ReflexError
from reflex_core.export.export import open_export
from reflex_core.files.observations import named_observations
from reflex_core.files.share import export_path
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.values import Observation
from reflex_ros.cli.argument_types import positive, seed
from reflex_ros.cli.parser import Parser
from reflex_ros.cli.robot_options import add_robot, robot_of


def main(argv: list[str] | None = None) -> int:
    """Write the manifest of an export. 0: written; 1: refused, and nothing was written; 2: a bad command line."""
    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        return _write(options)
    except (ReflexError, OSError) as error:
        print(f"reflex manifest: {error}", file=sys.stderr)
        return 1


def parser() -> Parser:
    """Return the command line of `reflex manifest`."""
    made = Parser(
        prog="reflex manifest",
        description=f"Write {MANIFEST} (SHA-256 of every file) and {FIXTURE} (an observation and the chunk computed"
        " from it here, on the CPU). `reflex doctor` compares both on any machine.",
        examples=("reflex manifest ./my-export --embodiment franka --observations recorded/",),
    )
    made.add_argument(
        "export_dir", metavar="EXPORT", type=export_path, help="the export; demo: the embedded one"
    )
    made.add_argument(
        "--observations", type=Path, metavar="DIR",
        help="recorded observations (docs/reference/observations.md), of which the first is used; default: a plain grey image",
    )  # fmt: skip
    add_robot(made)
    made.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of the start noise")
    made.add_argument(
        "--tolerance", type=positive, metavar="X", default=TOLERANCE,
        help="largest allowed difference on another machine, in the network's own units",
    )  # fmt: skip
    made.add_argument(
        "--keep-parity", action="store_true",
        help=f"keep the {FIXTURE} that exists, for example of the training code: write only the hashes",
    )  # fmt: skip
    made.add_argument("--force", action="store_true", help="replace existing files")
    return made


def _write(options: argparse.Namespace) -> int:
    path: Path = options.export_dir
    policy = load_policy(open_export(path), robot_of(path, options), "cpu", 1)
    if options.keep_parity:
        write_manifest_again(policy, force=options.force)
    else:
        observation, what = _observation(policy, options.observations)
        write_manifest(
            policy, observation, what, seed=options.seed, tolerance=options.tolerance, force=options.force
        )
        print(f"{path / FIXTURE}: {what}, seed {options.seed}")
    print(f"{path / MANIFEST}: {len(shipped_files(path))} files of {policy.export.model_version}")
    return 0


def _observation(policy: Policy, folder: Path | None) -> tuple[Observation, str]:
    """Return the observation for the fixture's chunk, and its description."""
    if folder is None:
        return policy.canary(), "a plain grey picture"
    name, observation = next(iter(named_observations(folder).items()))
    return observation, f"the recorded observation {name}"


if __name__ == "__main__":
    sys.exit(main())
