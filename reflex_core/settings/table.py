# SPDX-License-Identifier: Apache-2.0
"""Every setting, once: name, type, default, range and help.

The command line, the ROS parameters, the launch arguments and docs/reference/settings.md are made from `TABLE`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

from reflex_core.concurrency.real_time import MOST_HZ
from reflex_core.errors import SettingError
from reflex_core.settings.row import Setting, Value, checked, row
from reflex_core.text.suggestions import no_such

AUTO, LEGACY, BLEND = (
    "auto",
    "legacy",
    "blend",
)  # what a trajectory controller does with a new trajectory while one runs

_policy = partial(row, group="policy")
_safety = partial(row, group="safety")
_time = partial(row, group="time")
_failure = partial(row, group="failure")
_record = partial(row, group="record")
_http = partial(row, group="http", when="start")
_log = partial(row, group="log", when="start")
_ros = partial(row, group="ros")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one serving process. Build it with `settings_from`, which checks every value."""

    # fmt: off
    export_dir: str = _policy("", "Directory of the ONNX export to serve; demo: the embedded reach_panda policy, pick: pick_panda"
        " (a directory of that name is ./demo). Empty: that policy is served without commanding a robot.", path=True, metavar="DIR")
    remote: str = _policy(
        "", "URL of a server that runs the policy in place of an export: http(s) of this server's kind, ws(s) of openpi's, with the path of"
        " vLLM's where it is one. The embodiment must be given. --policy-a, --policy-b and --shadow-policy take such URLs, too.", metavar="URL",
    )
    remote_api_key_file: str = _policy(
        "", "File holding that server's API key. The environment variable REFLEX_REMOTE_API_KEY does the same.", path=True
    )
    remote_description: str = _policy(
        "", "JSON file that says of that policy what its server does not: action_names, action_space, units, frequency_hz, state_names.",
        path=True,
    )
    remote_keys: tuple[str, ...] = _policy(
        (), "Keys of the observations that are sent to openpi's servers: [front=observation/image, state=joints+gripper,"
        " instruction=prompt]; camera=key:bgr for images as BGR, camera=key:chw for channels first. Empty: as LIBERO has them.",
        metavar="OURS=THEIRS",
    )
    remote_images: str = _policy(
        "jpeg", "How images of raw topics are sent to a server of this kind: as JPEG, or all of their bytes; openpi's take bytes alone.",
        choices=("jpeg", "raw"),
    )
    remote_image_size: int = _policy(
        0, "Side in pixels to which larger images are scaled, with bars, before they are sent; 0: as they are.", minimum=0, maximum=8192
    )
    remote_timeout_ms: float = _policy(
        2000.0, "Time limit for an answer of that server; the rows that the robot has go on meanwhile, then it holds.",
        minimum=1.0, maximum=60_000.0,
    )
    remote_wait_s: float = _policy(
        5.0, "How long configure waits for that server to answer at all; then it is refused.", minimum=0.0, maximum=3600.0
    )
    embodiment: str = _policy("", "Embodiment preset by name, for example franka. Empty: the export's own.", metavar="NAME")
    custom_embodiment_config: str = _policy("", "Embodiment JSON file; overrides --embodiment.", path=True)
    lerobot_calibration: str = _policy(
        "", "File in which LeRobot calibrated this very arm, for policies that count in degrees or in shares of a travel. Empty:"
        " the one that the embodiment names.", path=True,
    )
    robot_id: str = _policy("", "Name of this robot in replies, metrics and diagnostics.", metavar="NAME")
    device: str = _policy(
        "auto",
        "Where inference runs. auto takes CUDA if this onnxruntime has it; cuda and tensorrt refuse to fall back.",
        choices=("auto", "cpu", "cuda", "tensorrt"),
    )
    providers: tuple[str, ...] = _policy((), "Providers of onnxruntime by name, best first; overrides --device.", metavar="PROVIDER")
    allow_cpu_fallback: bool = _policy(
        False, "Serve on the CPU if the requested GPU does not start, instead of refusing."
    )
    cuda_graphs: bool = _policy(False, "Capture the graphs as CUDA graphs at warm-up and replay them. Needs a GPU.")
    tensorrt_fp16: bool = _policy(True, "Let TensorRT compute in half precision. Needs --device tensorrt.")
    tensorrt_engine_dir: str = _policy(
        "", "Directory of TensorRT's engines. Empty: .ort_trt in the export, else ~/.cache/reflex/tensorrt.", path=True, metavar="DIR"
    )
    tensorrt_engines: str = _policy(
        "build", "When the engines are missing or of another machine: build them at the start, or refuse to start.",
        choices=("build", "refuse"),
    )
    intra_op_threads: int = _policy(
        0, "Threads of one onnxruntime operator; 0: 1 for graphs below 8 MB, else one per physical core.", minimum=0, maximum=256
    )
    max_batch: int = _policy(
        1, "Requests that wait anyway are run as one batch of at most so many; 1: one at a time. Needs graphs with a dynamic batch"
        " axis, and as many --http-threads.", minimum=1, maximum=32,
    )
    variant: str = _policy("", "Variant of the export to load, by its name in `variants` of reflex_config.json.", metavar="NAME")
    denoise_steps: int = _policy(0, "Denoise steps; 0: the export's. Only for loops outside the graph.", minimum=0, maximum=1000)
    chunk_size: int = _policy(0, "Rows of a chunk; 0: the export's. Only for graphs with a dynamic number of rows.", minimum=0, maximum=1000)
    constant_state: str = _policy(
        "refuse", "A state dimension that was constant in training and has another value now: refuse the observation, or pass it on.",
        choices=("refuse", "pass"),
    )
    load_timeout_s: float = _policy(
        1800.0, "Time limit for loading a policy, building engines included; 0: none.", minimum=0.0, maximum=86_400.0
    )
    auto_calibrate: bool = _policy(
        False, "Measure this machine at configure (or use the cache) and choose provider, threads, steps and chunk size."
    )
    calibration_cache: str = _policy("", "File that caches the measurements. Empty: ~/.reflex/calibration.json.", path=True)
    calibrate_force: bool = _policy(False, "With --auto-calibrate: ignore the cache and measure again.")
    adaptive_steps: bool = _policy(
        False, "End the denoise loop when the velocity has converged. The export must be calibrated for it."
    )
    adaptive_threshold: float = _policy(
        0.0, "Relative velocity change at which denoising stops; 0: the export's calibrated threshold.",
        when="live", minimum=0.0, maximum=10.0,
    )
    prefix_cache: bool = _policy(
        False, "Cache each episode's prefix while its instruction and images do not change. The export has the threshold."
    )
    prefix_cache_max_age_ms: float = _policy(
        0.0, "Maximum age of a cached prefix; 0: the export's.", minimum=0.0, maximum=60_000.0
    )
    rtc: bool = _policy(
        True, "Real-time chunking: the rest of an episode's previous chunk guides the next one. Two policies need --no-rtc."
    )
    temporal_ensemble: str = _policy(
        "auto", "Average the chunks of an episode at each moment, with one inference per control step: as the export says, or never.",
        choices=("auto", "off"),
    )
    a2c2_checkpoint: str = _policy("", "A2C2 head (.npz) that corrects late chunks with the newest observation. Empty: none.", path=True)
    a2c2_latency_threshold_ms: float = _policy(
        40.0, "Latency (95th percentile) below which chunks are not corrected.", minimum=0.001, maximum=60_000.0
    )
    a2c2_success_threshold: float = _policy(
        0.9, "Success rate of reported episodes above which chunks are not corrected; above 1: always corrected.",
        minimum=0.0, maximum=2.0,
    )
    a2c2_every_step: bool = _policy(
        False, "Correct the rows of streamed outputs by every new observation, instead of each chunk once. Needs --a2c2-checkpoint."
    )
    policy_a: str = _policy("", "Export of slot a; requires --policy-b. Both are loaded, and the episodes are split between them.", path=True,
        metavar="DIR")
    policy_b: str = _policy("", "Export of slot b; requires --policy-a.", path=True, metavar="DIR")
    split: int = _policy(50, "Percentage of new episodes for slot a.", when="live", minimum=0, maximum=100, metavar="PERCENT")
    shadow_policy: str = _policy(
        "", "Export that gets the same observations; only the divergence is recorded. Not with --policy-b.", path=True, metavar="DIR",
    )
    rollback_divergence: float = _policy(
        0.0, "Mean divergence of the two policies (RMS of the worst joint) above which a change of split is reverted. 0: not compared.",
        minimum=0.0, maximum=1000.0,
    )
    seed: int = _policy(
        -1, "Base seed of the start noise; -1: a new one per process. Each reply has its seed.",
        minimum=-1, maximum=2**63 - 1,
    )

    safety_config: str = _safety("", "JSON file of joint limits (see `reflex guard init`); tightens the embodiment's ranges.", path=True)
    plausibility_margin_rad: float = _safety(
        0.2, "How far outside its range a joint may be measured before the reading is rejected as a sensor fault; at least a tenth of the range.",
        minimum=0.0, maximum=10.0,
    )
    path_tolerance_rad: float = _safety(
        0.4, "How far a joint may be measured from its command of the last 0.2 s before the robot holds; from half of it on a warning is published."
        " Grippers are not judged. 0: nothing is.",
        minimum=0.0, maximum=10.0,
    )
    audit_log: str = _safety("", "Directory of the hash-chained log of every served action. Empty: none.", path=True, metavar="DIR")
    audit_retention_days: int = _safety(
        183, "Retention of audit files in days; 0: unlimited. EU AI Act Art. 26(6) requires six months of deployers.",
        minimum=0, maximum=36500,
    )

    deadline_ms: float = _time(
        0.0, "Deadline from receipt to reply; after it the last good chunk continues, else the robot holds. 0: none.",
        when="live", minimum=0.0, maximum=60_000.0,
    )
    max_fallback_age_ms: float = _time(
        1000.0, "Maximum age of the last good chunk that is the fallback at the deadline.",
        when="live", minimum=0.0, maximum=60_000.0,
    )
    slo: str = _time("", "Latency objective such as p99=150ms. Empty: none.", when="live", metavar="OBJECTIVE")
    slo_mode: str = _time(
        "auto",
        "While the objective is missed: only log it, refuse new requests (503), or take fewer denoise steps (degrade)."
        " auto: degrade if the export can take fewer, else log_only.",
        when="live", choices=("auto", "log_only", "503", "degrade"),
    )
    inject_latency_ms: float = _time(
        0.0, "Delay added to every answer, for experiments.", when="live", minimum=0.0, maximum=1000.0
    )

    cloud_fallback: str = _failure(
        "", "URL of another server with /act, or ws(s) of openpi's that says that its rows are positions of named joints, used when the local"
        " policy fails. Empty: none.", metavar="URL",
    )
    cloud_api_key_file: str = _failure(
        "", "File holding the other server's API key. The environment variable REFLEX_CLOUD_API_KEY does the same.", path=True
    )
    cloud_timeout_ms: float = _failure(
        500.0, "Time limit for the cloud if there is no deadline.", minimum=1.0, maximum=60_000.0
    )
    cloud_hedge_ms: float = _failure(
        0.0, "Also send a request to the cloud if the local policy has not answered after this time; 0: only after a failure.",
        minimum=0.0, maximum=60_000.0,
    )
    max_consecutive_crashes: int = _failure(
        5, "Consecutive model failures that open the circuit breaker (503); 0: never.", minimum=0, maximum=10_000
    )
    breaker_cooldown_s: float = _failure(
        60.0, "Time until an open breaker lets one request probe the model.", minimum=0.1, maximum=86_400.0
    )

    record: str = _record("", "Directory for JSONL traces of every request. Empty: none.", path=True, metavar="DIR")
    record_images: str = _record(
        "hash_only", "What a trace stores of the images: all of them, their hash, or nothing.",
        choices=("full", "hash_only", "none"),
    )
    record_no_gzip: bool = _record(False, "Write traces as plain JSONL.")
    record_bag: str = _record("", "Directory for rosbag2 bags of inputs and published outputs, one per activation. Empty: none.",
        path=True, metavar="DIR")
    record_bag_streams: str = _record(
        "full", "Which camera and state messages a bag holds: full, all of them as they arrive; consumed, those alone that inference used.",
        choices=("full", "consumed"),
    )
    record_bag_storage: str = _record("mcap", "Format of the bags' files.", choices=("mcap", "sqlite3"))
    record_bag_split_mb: int = _record(512, "Size at which a bag's file is split.", minimum=1, maximum=1_000_000)
    otel_endpoint: str = _record(
        "", "Base URL of an OTLP/HTTP receiver that gets an OpenTelemetry span per request (extra `otel`). Empty: none.", metavar="URL",
    )
    otel_sample: float = _record(
        1.0, "Share of requests that become spans; a caller's traceparent decides for its own.", minimum=0.0, maximum=1.0
    )

    http: bool = _http(True, "Answer /act, /health, /config and /metrics over HTTP.")
    host: str = _http("127.0.0.1", "Address to listen on. Other than loopback requires a key or --insecure.", metavar="ADDRESS")
    port: int = _http(8000, "Port to listen on; 0: a free one.", minimum=0, maximum=65535)
    api_key_file: str = _http("", "File holding the API key. The environment variable REFLEX_API_KEY does the same.", path=True)
    keys_file: str = _http(
        "", "File of hashed API keys with robot ids and rights, as `reflex key add` writes it; read again when it changes.", path=True
    )
    tls_cert: str = _http(
        "", "File of the certificate chain (PEM) to serve https and wss with, together with --tls-key; read again when it changes.", path=True
    )
    tls_key: str = _http("", "File of that certificate's private key (PEM, without a password).", path=True)
    insecure: bool = _http(False, "Allow other addresses than loopback without an API key.")
    http_threads: int = _http(
        4, "Threads that decode and serve HTTP requests; inference itself runs one at a time, or in batches of --max-batch.", minimum=1, maximum=64
    )
    drain_s: float = _http(
        0.0, "With HTTP alone: seconds after SIGTERM in which /health says 503 and requests are answered.", minimum=0.0, maximum=600.0
    )
    max_concurrent: int = _http(0, "Concurrent requests on /act; more get 429. 0: no limit of its own.", minimum=0, maximum=10_000)
    max_waiting_per_robot: int = _http(
        8, "Requests of one robot, known by its key or X-Session-Id, that may wait; more get 429. 0: no bound of its own.",
        minimum=0, maximum=64,
    )
    wire_keys: tuple[str, ...] = _http(
        (), "Which key of an observation of another server's clients is which camera, the state and the instruction: [front=observation/image,"
        " state=joints+gripper, instruction=prompt]; camera=key:bgr for images sent as BGR,"
        " state=joints+gripper:closed for a gripper in 0 (open) to 1 (closed), :open for the other way round."
        " Empty: guessed from the names, and logged.",
        when="configure", metavar="OURS=THEIRS",
    )
    lerobot_port: int = _http(
        -1, "Port for LeRobot's robot_client (gRPC), which needs the extra `lerobot`; its own default is 8080. -1: none; 0: a free one.",
        minimum=-1, maximum=65535,
    )
    lerobot_host: str = _http(
        "127.0.0.1", "Address of that port. LeRobot's clients bring no key: other than loopback requires --insecure and --lerobot-insecure.",
        metavar="ADDRESS",
    )
    lerobot_insecure: bool = _http(False, "With --insecure: allow other addresses than loopback for --lerobot-port, which no key protects.")
    lerobot_units: tuple[str, ...] = _http(
        (), "What LeRobot's clients count their joints in: degrees, norm100 (-100 to 100) or radians, [degrees, jaw=percent] for single joints;"
        " a gripper is in 0 to 100 with the first two. Empty: as the export's `units` say.", when="configure", metavar="UNIT",
    )
    lerobot_fps: float = _http(
        0.0, "Rate at which LeRobot's clients execute rows (their --fps); rows are interpolated to it. 0: they get the policy's own rows.",
        when="configure", minimum=0.0, maximum=1000.0,
    )
    groot_port: int = _http(
        -1, "Port for clients of Isaac-GR00T (ZeroMQ), at --host and with its key as `api_token`, which needs the extra `gr00t`; their own default"
        " is 5555. -1: none; 0: a free one.", minimum=-1, maximum=65535,
    )
    max_pixels: int = _http(25_000_000, "Maximum image size in pixels, over HTTP and from topics; larger ones are refused undecoded.", minimum=1024)

    log_level: str = _log(
        "info", "Least severe log lines that are printed; -q is warning, -v is debug.", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _log(
        "text", "Log lines as text with local time, or as one JSON object each, with the id of the request they are about.",
        choices=("text", "json"),
    )

    autostart: bool = _ros(True, "Configure and activate at start, without a lifecycle manager.", when="start")
    await_goal: bool = _ros(
        False, "Command nothing from activation on until a goal of ~/run_policy arrives, or ~/resume is called."
    )
    dry_run: bool = _ros(
        False, "Command nothing, but for ~/first_motion: no robot interface is made. What would be commanded is on ~/dry_run, in traces and bags."
    )
    instruction: str = _ros("", "Initial instruction, until one arrives on the instruction topic.")
    image_transport: str = _ros(
        "raw", "Camera topics to subscribe to: <camera>/image_raw, or its /compressed variant.",
        choices=("raw", "compressed"),
    )
    state_source: str = _ros(
        "joint_states", "Message type of the robot state.", choices=("joint_states", "imu", "odometry")
    )
    output: str = _ros(
        "joint_trajectory",
        "Robot interface of a robot whose embodiment has no groups: joint_trajectory (trajectory_msgs/JointTrajectory) or forward_command"
        " (std_msgs/Float64MultiArray); those of groups: docs/reference/robot-interfaces.md.", metavar="INTERFACE",
    )
    controller_wait_s: float = _ros(
        5.0, "How long becoming active waits for the controller of every group of an embodiment; then it is refused. 0: requires none.",
        minimum=0.0, maximum=600.0,
    )
    joint_names: tuple[str, ...] = _ros(
        (), "Joint names on the robot, in the embodiment's order. Empty: those of the export or embodiment."
    )
    max_age_ms: float = _ros(
        300.0, "Maximum age of an observation.", when="live", minimum=1.0, maximum=60_000.0
    )
    max_skew_ms: float = _ros(
        150.0, "Maximum difference between the stamps of one observation.", when="live", minimum=0.0, maximum=60_000.0
    )
    margin_ms: float = _ros(
        100.0, "Margin, added to the measured latency, by which the next chunk is requested early.",
        when="live", minimum=0.0, maximum=10_000.0,
    )
    execution_horizon: int = _ros(
        0, "Actions to execute before the next chunk is requested; 0: the embodiment's, at most the export's n_action_steps.",
        when="live", minimum=0, maximum=1000,
    )
    fade_s: float = _ros(
        0.3, "Time within which the rows of a new chunk are led over from the running motion, so that the robot does not jerk; 0: not at all.",
        when="live", minimum=0.0, maximum=5.0,
    )
    blend: float = _ros(
        1.0, "Share of the policy's motion that is commanded: 0 leaves the robot where it is, 1 lets all of it through. The topic"
        " ~/blend sets it, too.", when="live", minimum=0.0, maximum=1.0,
    )
    blend_s: float = _ros(
        1.0, "Time in which that share goes from 0 to 1, after it was set and after a person has commanded the robot; 0: at once.",
        when="live", minimum=0.0, maximum=60.0,
    )
    takeover_release_s: float = _ros(
        0.0, "Let a person command the robot on ~/takeover or ~/takeover_trajectory, until nothing came there for so long; 0: off."
        " The policy goes on inferring meanwhile.", minimum=0.0, maximum=5.0,
    )
    takeover_button: int = _ros(
        -1, "Button of the joystick on ~/takeover_joy that has to be pressed while a person commands, counted from 0; -1: none.",
        minimum=-1, maximum=63,
    )
    trajectory_era: str = _ros(
        AUTO, "What joint_trajectory_controller does with a new trajectory while one runs. legacy (Humble to Kilted, or"
        " allow_trajectory_replacement false): the new one replaces it. blend (later): it bridges the two by itself."
        " auto: legacy, unless the controller says otherwise.",
        choices=(AUTO, LEGACY, BLEND),
    )
    control_rate_hz: float = _ros(
        0.0, "Ticks per second of what joints and bases are sent row by row (forward_command, twist, servo_*, pose); 0: the rate_hz of"
        " each group, 100 (twist 50) where it gives none. More than 100 needs real-time priority for the threads that tick, and is"
        " refused where the system does not permit that.",
        minimum=0.0, maximum=MOST_HZ, beyond="a thread of this process keeps up no more; take the output joint_trajectory, whose"
        " controller interpolates at its own rate",
    )
    status_rate_hz: float = _ros(5.0, "Rate of ~/status.", when="start", minimum=0.1, maximum=100.0)
    # fmt: on


TABLE: tuple[Setting, ...] = tuple(
    Setting(name=entry.name, default=cast(Value, entry.default), **entry.metadata)
    for entry in dataclasses.fields(Settings)
)


def settings_from(values: Mapping[str, object]) -> Settings:
    """Return Settings with the given values over the defaults. Raises SettingError for a wrong name or value."""
    rows = {row.name: row for row in TABLE}
    require_known(values)
    return Settings(**{name: checked(rows[name], value) for name, value in values.items()})  # type: ignore[arg-type]


def require_known(names: Iterable[str]) -> None:
    """Raise SettingError for names that no setting has, with what was meant."""
    known = [row.name for row in TABLE]
    if unknown := sorted(set(names) - set(known)):
        raise SettingError(no_such("setting", unknown, known))
