# SPDX-License-Identifier: Apache-2.0
"""What a fleet costs its Prometheus: series per robot, bytes per sample, CPU and memory while it scrapes.

Records the /metrics of a real server while it answers requests (`--url`: of a robot that runs), puts them into blocks
of a time series database with promtool, and lets a real Prometheus with the shipped rules scrape as many copies.
Programs of Debian's package prometheus are taken from the environment of `make test` or from PATH.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import orjson

from benchmarks.exports import ROOT, embedded
from benchmarks.measure import finish, parser, table
from benchmarks.server import Client, get, post_act, served

DASHBOARDS = ROOT / "dashboards"
RETENTION_DAYS = 30
DAY_S = 86400
READY_S = 60.0
ADDED_BY_SCRAPE = 5  # up, and four about the scrape itself
RULE_INTERVAL_S = 15  # of dashboards/alerts.yml, but for two rules
CREATED = re.compile(r"_created\b")  # dropped by dashboards/prometheus.yml

HOME = [0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8]  # rad

Row = dict[str, object]
Samples = dict[str, float]  # series with its labels: value


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table per question."""
    options = parser(__doc__ or "")
    options.add_argument("--robots", type=int, default=200)
    options.add_argument("--interval", type=int, default=5, help="seconds between scrapes [5]")
    options.add_argument("--scrapes", type=int, default=720, help="scrapes to record [720, an hour of 5 s]")
    options.add_argument("--seconds", type=float, default=120.0, help="how long Prometheus scrapes [120]")
    options.add_argument("--url", default="", help="HOST:PORT of a running robot, instead of an own server")
    chosen = options.parse_args(argv)
    recorded = recordings(chosen.scrapes, chosen.url)
    with tempfile.TemporaryDirectory() as folder:
        stored = bytes_per_sample([samples_of(text) for text in recorded], chosen.interval, Path(folder))
        load = loaded(recorded, chosen.robots, chosen.interval, chosen.seconds, Path(folder))
    per_scrape = chosen.robots * (series(recorded[-1]) + ADDED_BY_SCRAPE)
    rate = per_scrape / chosen.interval + load.pop("recorded series") / RULE_INTERVAL_S
    results: dict[str, list[Row]] = {
        "robot": [{
            "series": series(recorded[-1]), "left out": left_out(recorded[-1]), "KB per scrape": len(recorded[-1]) / 1e3,
            "bytes per sample": stored,
        }],
        "fleet": [{
            "robots": chosen.robots, "every s": chosen.interval, **load, "samples/s": rate,
            f"GB in {RETENTION_DAYS} days": rate * DAY_S * RETENTION_DAYS * stored / 1e9,
        }],
    }  # fmt: skip
    print("\n\n".join(table(rows) for rows in results.values()))
    finish("fleet_load", results, chosen.output)
    return 0


def recordings(count: int, url: str) -> list[str]:
    """Return the /metrics of a robot that answers requests, `count` times, with a request in between where it is our own."""
    if url:
        return [_read(f"http://{url}/metrics") for _ in range(count)]
    with served(embedded()) as port:
        client, request = Client(port), post_act("camera", HOME, 224, 224, "jpeg")
        texts = []
        for _ in range(count):
            if client.ask(request).status != 200:
                raise RuntimeError("the server did not answer /act")
            texts.append(client.ask(get("/metrics")).body.decode())
        client.close()
    return texts


def _read(url: str) -> str:
    with urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def samples_of(text: str) -> Samples:
    """Return what Prometheus stores of an exposition."""
    pairs = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs if not CREATED.search(name)}


def series(text: str) -> int:
    """Return the number of series of an exposition that are stored."""
    return len(samples_of(text))


def left_out(text: str) -> int:
    """Return the number of series that the scrape file drops."""
    return sum(1 for line in text.splitlines() if line and not line.startswith("#") and CREATED.search(line))


def bytes_per_sample(scrapes: Sequence[Samples], interval_s: int, folder: Path) -> float:
    """Return the size of a sample in compressed blocks, index included. Raises CalledProcessError."""
    began_s = int(time.time()) // 7200 * 7200 - 14400  # blocks are of two hours
    names = sorted({name for scrape in scrapes for name in scrape})
    written = 0
    with (folder / "history").open("w", encoding="utf-8") as file:
        for name in names:
            for number, scrape in enumerate(scrapes):
                if name in scrape:
                    file.write(f"{name} {scrape[name]} {began_s + number * interval_s}\n")
                    written += 1
        file.write("# EOF\n")
    command = [
        program("promtool"),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        str(folder / "history"),
        str(folder / "blocks"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return sum(path.stat().st_size for path in (folder / "blocks").rglob("*") if path.is_file()) / written


def loaded(
    texts: Sequence[str], robots: int, interval_s: int, seconds: float, folder: Path
) -> dict[str, float]:
    """Return what a Prometheus with the shipped files needs for so many robots."""
    with copies(texts, interval_s) as port:
        rules = (DASHBOARDS / "alerts.yml").read_text(encoding="utf-8")
        (folder / "alerts.yml").write_text(rules, encoding="utf-8")
        scrape = (DASHBOARDS / "prometheus.yml").read_text(encoding="utf-8")
        scrape = re.sub(r"scrape_interval: \w+", f"scrape_interval: {interval_s}s", scrape)
        (folder / "prometheus.yml").write_text(scrape, encoding="utf-8")
        listed = [
            {
                "targets": [f"127.0.0.1:{port}"],
                "labels": {"__metrics_path__": f"/{number}", "robot_id": f"arm-{number:03}", "cell": f"cell-{number % 10}"},
            }
            for number in range(robots)
        ]  # fmt: skip
        (folder / "robots.yml").write_bytes(orjson.dumps(listed))
        with prometheus(folder) as url:
            time.sleep(seconds / 2)
            first, began = samples_of(_read(f"{url}/metrics")), time.monotonic()
            time.sleep(seconds / 2)
            last, took_s = samples_of(_read(f"{url}/metrics")), time.monotonic() - began
    durations = [
        value
        for name, value in last.items()
        if name.startswith("prometheus_rule_group_last_duration_seconds")
    ]
    recorded = sum(
        value
        for name, value in last.items()
        if name.startswith("prometheus_rule_group_last_evaluation_samples")
    )
    cpu = "process_cpu_seconds_total"
    return {
        "series": last["prometheus_tsdb_head_series"],
        "recorded series": recorded,
        "% of a core": 100 * (last[cpu] - first[cpu]) / took_s,
        "MB": last["process_resident_memory_bytes"] / 1e6,
        "rules ms": 1e3 * sum(durations),
    }


@contextmanager
def copies(texts: Sequence[str], interval_s: int) -> Iterator[int]:
    """Serve the recordings at every path, one after the other; gives the port."""
    bodies = [text.encode() for text in texts]
    began = time.monotonic()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = bodies[int((time.monotonic() - began) / interval_s) % len(bodies)]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """Run a Prometheus with the files of a folder; gives its URL once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    command = [
        program("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}", "--log.level=error",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_until_ready(url)
            yield url
        finally:
            process.terminate()


def _wait_until_ready(url: str) -> None:
    end_s = time.monotonic() + READY_S
    while True:
        try:
            _read(f"{url}/-/ready")
            return
        except URLError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.1)


def program(name: str) -> str:
    """Return the path of a program. Raises RuntimeError where it is not installed."""
    unpacked = Path(sys.prefix) / "debian" / "usr" / "bin" / name
    found = str(unpacked) if unpacked.is_file() else shutil.which(name)
    if not found:
        raise RuntimeError(
            f"{name} is neither {unpacked} nor on PATH: run `make test`, or install Debian's prometheus"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
