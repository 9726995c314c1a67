# SPDX-License-Identifier: Apache-2.0
"""What CONTRIBUTING.md says about adding something, done in a copy: only the files that it names are touched, and it works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from domains import free_domain
from exports import monolithic
from scratch import Scratch


@pytest.fixture
def copy(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "copy")


def insert(copy: Scratch, name: str, after: str, text: str) -> None:
    """Write `text` behind the one place that reads `after`."""
    copy.change(name, after, after + text)


BMP = '''
"""Uncompressed BMP files, through OpenCV."""

import struct

import cv2
import numpy as np

from reflex_core.images.file_kind import FileHeader, FileKind


def _header(data):
    width, height = struct.unpack("<ii", bytes(data[18:26]))
    return FileHeader("bmp", abs(height), width, 3)


def _decode(data):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


KIND = FileKind("bmp", "BMP", b"BM", _header, _decode, lambda data: _decode(data)[:, :, :1])
'''

ASK_WITH_BMP = """
import base64, json, sys, threading, urllib.request
import cv2, numpy as np
from reflex_core.engine.engine import Engine
from reflex_core.settings.table import settings_from
from reflex_ros.sidecar.server import Sidecar

settings = settings_from({"export_dir": "demo", "port": 0})
engine = Engine(settings)
engine.load(settings)
engine.warm_up()
sidecar = Sidecar(engine, settings)
sidecar.start()
picture = cv2.imencode(".bmp", np.full((96, 96, 3), 90, np.uint8))[1].tobytes()
body = {"image": base64.b64encode(picture).decode(), "instruction": "reach the red block", "state": [0, 0.2, 0, -2.4, 0, 2.6, 0.8]}
request = urllib.request.Request(f"{sys.argv[1]}:{sidecar.port}/act", json.dumps(body).encode(), {"Content-Type": "application/json"})
print(len(json.load(urllib.request.urlopen(request))["actions"]))
sidecar.stop()
engine.unload()
"""


def test_a_kind_of_picture_files_is_a_file_and_a_row(copy: Scratch) -> None:
    copy.add("reflex_core/images/bmp.py", BMP)
    insert(copy, "reflex_core/images/file_kinds.py", "from reflex_core.images import ", "bmp, ")
    insert(copy, "reflex_core/images/file_kinds.py", "for kind in (", "bmp.KIND, ")
    assert int(copy.run(ASK_WITH_BMP, "http://127.0.0.1")) > 0
    assert set(copy.touched) == {"reflex_core/images/bmp.py", "reflex_core/images/file_kinds.py"}


COUNTING = '''
"""Counts what comes by."""

from dataclasses import replace


class Counting:
    def __init__(self):
        self.requests = 0

    def __call__(self, request, proceed):
        self.requests += 1
        return replace(proceed(request), request_id=f"number {self.requests}")
'''

ASK_TWICE = """
from reflex_core.engine.engine import Engine
from reflex_core.settings.table import settings_from

settings = settings_from({"export_dir": "demo"})
engine = Engine(settings)
engine.load(settings)
engine.warm_up()
observation = engine.loaded.policy.canary()
print([engine.act(engine.request(observation)).request_id for _ in range(2)])
engine.unload()
"""


def test_a_wedge_is_a_file_a_place_in_the_order_and_a_line_that_makes_it(copy: Scratch) -> None:
    copy.add("reflex_core/wedges/counting.py", COUNTING)
    insert(copy, "reflex_core/wedges/order.py", '"admission", ', '"counting", ')
    insert(
        copy, "reflex_core/engine/build.py", '"telemetry": telemetry,\n', '        "counting": Counting(),\n'
    )
    insert(copy,
        "reflex_core/engine/build.py", "from reflex_core.wedges.wedge import Wedge\n",
        "from reflex_core.wedges.counting import Counting\n",
    )  # fmt: skip
    assert copy.run(ASK_TWICE).strip() == "['number 1', 'number 2']"
    assert set(copy.touched) == {
        "reflex_core/wedges/counting.py", "reflex_core/wedges/order.py", "reflex_core/engine/build.py",
    }  # fmt: skip


PREDICT = """
import json, sys
from pathlib import Path
from reflex_core.export.export import open_export
from reflex_core.policy.load import load_policy

policy = load_policy(open_export(Path(sys.argv[1])), None, "cpu", 1)
prediction = policy.predict(policy.canary(), 0)
slot = policy.contract.images[0]
print(json.dumps([type(policy).__name__, prediction.actions.shape, slot.camera, slot.resize, policy._language.prompt("go")]))
"""

SEEDLESS = '''
"""A network that takes the same noise for every seed."""

from reflex_core.policy import flow_matching


class Seedless:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def predict(self, observation, seed, *rest, **more):
        return self._inner.predict(observation, 0, *rest, **more)


def load(*arguments):
    return Seedless(flow_matching.load(*arguments))
'''


def test_a_model_family_is_a_row_and_another_kind_of_network_a_file_and_a_row(
    copy: Scratch, tmp_path: Path
) -> None:
    export = tmp_path / "tiny"
    monolithic("smolvla", robot=True)(export)
    config = json.loads((export / "reflex_config.json").read_text())
    (export / "reflex_config.json").write_text(json.dumps(config | {"model_type": "tinyvla_decomposed"}))
    insert(
        copy,
        "reflex_core/export/families.py",
        "FAMILIES: Mapping[str, Family] = {\n",
        '    "tinyvla": Family({LEROBOT: Training(_SIGLIP, {"template": "Do: {instruction}"})}, policy="seedless",'
        ' cameras=("cam1", "cam2", "cam3"), padded_width=PADDED_WIDTH),\n',
    )
    copy.add("reflex_core/policy/seedless.py", SEEDLESS)
    insert(copy, "reflex_core/policy/load.py", "from reflex_core.policy import ", "seedless, ")
    insert(
        copy,
        "reflex_core/policy/load.py",
        "KINDS: Mapping[str, Load] = {",
        '"seedless": seedless.load, ',
    )
    name, shape, camera, resize, prompt = json.loads(copy.run(PREDICT, export))
    assert (name, shape[1], camera, resize, prompt) == ("Seedless", 7, "cam1", "letterbox", "Do: go")
    assert set(copy.touched) == {
        "reflex_core/export/families.py", "reflex_core/policy/load.py", "reflex_core/policy/seedless.py",
    }  # fmt: skip


FIRST_ROW = '''
"""~/first_row: the first row that has not elapsed, for controllers that follow one position at a time."""

from std_msgs.msg import Float64MultiArray


class FirstRowOutput:
    def __init__(self, node, publish, group):
        self._node, self._publish = node, publish
        self._publisher = node.create_lifecycle_publisher(Float64MultiArray, "~/first_row", 1)
        self.topics = (self._publisher.topic_name,)

    def enable(self):
        self._publisher.on_activate(None)

    def disable(self):
        self._publisher.on_deactivate(None)

    def send(self, command):
        row = command.chunk.actions[command.start]
        self._publish(self._publisher, Float64MultiArray(data=[float(value) for value in row]))

    hold = send

    def flush(self, timeout_s):
        pass

    def destroy(self):
        self._node.destroy_lifecycle_publisher(self._publisher)
'''

HOLD_OVER_ROS = """
import sys, time
from types import SimpleNamespace
import numpy as np, rclpy
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Float64MultiArray
from reflex_core.chunks.interpolation import Spline
from reflex_core.robot.groups import whole_robot
from reflex_core.robot.limits.hold import MEASURED, Hold
from reflex_core.settings.table import settings_from
from reflex_ros.outputs.interfaces import output_maker
from reflex_ros.outputs.outputs import Outputs
from reflex_ros.preflight import require_sound

settings = settings_from({"output": "first_row"})
require_sound(settings)
rclpy.init(domain_id=int(sys.argv[1]))
node = LifecycleNode("robot")
outputs = Outputs(node, "r1", whole_robot(("a", "b")), lambda group: output_maker(group.output or settings.output))
heard = []
node.create_subscription(Float64MultiArray, "~/first_row", lambda message: heard.append(list(message.data)), 1)
outputs.enable()
held = Hold(np.array([[0.0, 0.0], [0.25, 0.5]], np.float32), 0.05, 1, MEASURED, np.zeros(2))
motion = Spline(np.array([0, 100_000_000]), np.array([[0.0, 0.0], [0.25, 0.5]]), np.zeros((2, 2)))
end_s = time.monotonic() + 60
while not heard and time.monotonic() < end_s:
    outputs.hold(held, SimpleNamespace(action_names=("a", "b")), 0, "", 0, "stopped", motion)
    rclpy.spin_once(node, timeout_sec=0.05)
outputs.destroy()
print(outputs.addresses, heard[0])
rclpy.shutdown()
"""


def test_a_robot_interface_is_a_file_and_a_row(copy: Scratch) -> None:
    copy.add("reflex_ros/outputs/first_row.py", FIRST_ROW)
    insert(copy,
        "reflex_ros/outputs/interfaces.py", "INTERFACES = {\n",
        '    "first_row": ("reflex_ros.outputs.first_row", "FirstRowOutput"),\n',
    )  # fmt: skip
    assert copy.run(HOLD_OVER_ROS, str(free_domain())).strip() == "{'': '/robot/first_row'} [0.25, 0.5]"
    assert set(copy.touched) == {"reflex_ros/outputs/first_row.py", "reflex_ros/outputs/interfaces.py"}
