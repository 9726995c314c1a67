# SPDX-License-Identifier: Apache-2.0
"""Checks of ONNX Runtime: one build of it, and providers that really start."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from importlib import metadata

from reflex_core.doctor.finding import FAIL, OK, WARN, Finding
from reflex_core.errors import ConfigurationError

BUILDS = re.compile(r"onnxruntime(-(gpu|directml|openvino|rocm|migraphx|training|qnn))?")
# an Identity graph of one float, as the onnx library serialises it (IR version 8, operator set 13)
IDENTITY = bytes.fromhex(
    "080812003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where the policy is to run, as the settings request."""

    device: str = "auto"
    providers: tuple[str, ...] = ()
    allow_cpu_fallback: bool = False


def builds() -> Finding:
    """Check for two builds of onnxruntime, which overwrite each other's files; which one is left depends on the order."""
    import onnxruntime as ort

    installed = {
        str(found.metadata["Name"]).lower().replace("_", "-"): found.version
        for found in metadata.distributions()
        if found.metadata["Name"]
    }
    found = sorted(f"{name} {version}" for name, version in installed.items() if BUILDS.fullmatch(name))
    message = f"version {ort.__version__} from {', '.join(found) or 'a build of your own'}"
    if len(found) < 2:
        return Finding("onnxruntime", OK, message)
    names = " ".join(line.split()[0] for line in found)
    keep = "onnxruntime-gpu" if "onnxruntime-gpu" in names else "onnxruntime"
    return Finding(
        "onnxruntime", FAIL, f"{message}: they overwrite each other's files",
        f"pip uninstall {names}, then pip install {keep}",
    )  # fmt: skip


def providers(wanted: Wanted) -> Finding:
    """Check that the providers that serving would use really start, tried with a graph of one node."""
    import onnxruntime as ort

    from reflex_core.policy.providers import CPU, SHORT, providers_for

    there = ort.get_available_providers()
    fallback = "install onnxruntime-gpu with the CUDA and cuDNN it asks for, or take --device cpu"
    try:
        names = [SHORT.get(name, name) for name in wanted.providers] or providers_for(wanted.device)
    except ConfigurationError as error:
        level = WARN if wanted.allow_cpu_fallback else FAIL
        return Finding("providers", level, str(error), fallback)
    reasons = {name: _refusal(name) for name in dict.fromkeys([*names, CPU])}
    starts = [name for name, reason in reasons.items() if not reason]
    message = f"starts: {', '.join(starts) or 'none'}; this build has {', '.join(there)}"
    broken = [f"{name} does not start: {reason}" for name, reason in reasons.items() if reason]
    if not broken:
        return Finding("providers", OK, message)
    # of several the first is the requested one; the others are its fallback
    level = FAIL if reasons[names[0]] and not (wanted.allow_cpu_fallback and CPU in starts) else WARN
    return Finding("providers", level, f"{'; '.join(broken)}; {message}", fallback)


def _refusal(provider: str) -> str:
    """Return why a provider does not start or does not compute, '' when it does."""
    import numpy as np
    import onnxruntime as ort

    from reflex_core.policy.providers import session_options

    if provider not in ort.get_available_providers():
        return "it is not in this build"
    one = np.ones(1, dtype=np.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is looked at in the next line
            session = ort.InferenceSession(IDENTITY, session_options(1), providers=[provider])
        if provider not in session.get_providers():
            return f"onnxruntime took {', '.join(session.get_providers())} instead"
        given = session.run(None, {"x": one})[0]
    except Exception as error:  # whatever a driver raises
        return (str(error).splitlines() or [type(error).__name__])[0][:200]
    return "" if np.array_equal(given, one) else f"it computed {given} from {one}"
