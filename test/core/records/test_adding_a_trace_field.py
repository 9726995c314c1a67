# SPDX-License-Identifier: Apache-2.0
"""A field of an answer is added where the answer is described and where it is filled, and is then said everywhere."""

from __future__ import annotations

import json
from pathlib import Path

from scratch import Scratch

PROGRAM = """
import json, sys
from pathlib import Path
from reflex_core.engine.engine import Engine
from reflex_core.files.share import embedded_policy
from reflex_core.records.trace.reader import TraceReader
from reflex_core.settings.table import settings_from
from reflex_ros.otel.attributes import attributes, finished
from reflex_ros.sidecar.wires.json import JsonWire
from reflex_ros.sidecar.wires.wire import Answered

folder = Path(sys.argv[1])
engine = Engine(settings_from({"export_dir": str(embedded_policy()), "device": "cpu", "record": str(folder)}))
engine.load()
engine.warm_up()
for rows in (None, 3):
    request = engine.request(engine.loaded.policy.canary(), episode_id="pick", seed=1, elapsed_rows=rows)
    served = engine.act(request)
reply = json.loads(JsonWire().encode(Answered(served, engine.loaded, "server", "caller")))
span = attributes(finished(request, request.received_ns, served, 0), {}, "franka")
engine.unload()
with TraceReader(next(folder.glob("*.jsonl*"))) as trace:
    written = list(trace)[-1].document
print(json.dumps([written["rtc"]["weight"], reply["rtc_weight"], span["reflex.rtc.weight"], served.rtc.delay]))
"""


def test_a_field_of_an_answer_touches_its_block_and_what_fills_it(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch")
    reports, predict = "reflex_core/reports.py", "reflex_core/wedges/predict.py"
    scratch.change(
        reports,
        "    executed: tuple[tuple[float, ...], ...] = ()\n",
        "    executed: tuple[tuple[float, ...], ...] = ()\n    weight: float = 0.0\n",
    )
    scratch.change(
        reports,
        '{"mode": self.mode, "delay": self.delay, "previous": self.previous}',
        '{"mode": self.mode, "delay": self.delay, "previous": self.previous, "weight": self.weight}',
    )
    scratch.change(predict, "rows_of(found.executed)\n", "rows_of(found.executed), guidance.max_weight\n")
    (tmp_path / "traces").mkdir()
    *records, delay = json.loads(scratch.run(PROGRAM, tmp_path / "traces"))
    assert delay >= 1, "the second chunk is guided by the first"
    assert len(records) == 3
    assert min(records) == max(records) > 0
    assert scratch.touched == [reports, predict]
