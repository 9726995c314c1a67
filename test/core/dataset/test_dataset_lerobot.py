# SPDX-License-Identifier: Apache-2.0
"""`reflex trace export --format lerobot` against the documented layout of LeRobotDataset v3.0, read with pyarrow alone."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from dataset_traces import DT_NS, HORIZON, exported, trace_of
from pyarrow import parquet
from recordings import jpeg, picture

from reflex_core.dataset.feature_statistics import QUANTILES
from reflex_core.images.raw_encodings import rgb
from reflex_core.records.trace.hashing import frame_from
from reflex_core.values import Frame

Output = pytest.CaptureFixture[str]
EPISODES = ["one", "two", "one", "two", "two"]
STATS = {"min", "max", "mean", "std", "count", *QUANTILES}
VALUES = {
    "float32": pyarrow.float32(),
    "float64": pyarrow.float64(),
    "int64": pyarrow.int64(),
    "string": pyarrow.string(),
    "bool": pyarrow.bool_(),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from reflex_ros.cli.main import main

    folder = tmp_path_factory.mktemp("lerobot")
    trace = trace_of(folder / "traces", EPISODES)
    arguments = ["export", str(trace), "--format", "lerobot", "--output", str(folder / "set")]
    assert main(["trace", *arguments]) == 0
    return folder / "set"


def info(dataset: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((dataset / "meta" / "info.json").read_text())
    return found


def rows(dataset: Path) -> list[dict[str, Any]]:
    """All frames as LeRobot sees them: the files in the order of their names, one after the other."""
    return [
        row
        for path in sorted((dataset / "data").glob("*/*.parquet"))
        for row in parquet.read_table(path).to_pylist()
    ]


def test_info_says_what_a_v3_dataset_must_say(dataset: Path) -> None:
    found = info(dataset)
    assert found["codebase_version"] == "v3.0"
    assert (found["total_episodes"], found["total_frames"], found["total_tasks"]) == (2, 5, 2)
    assert found["splits"] == {"train": "0:2"}
    assert found["fps"] == 1  # three steps, of 1.0, 1.0 and 0.5 s
    assert found["video_path"] is None
    assert found["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    features = found["features"]
    assert features["observation.state"]["shape"] == [7]
    assert features["action"]["names"] == [f"panda_joint{number}" for number in range(1, 8)]
    assert features["observation.images.base"] == {
        "dtype": "image", "shape": [32, 32, 3], "names": ["height", "width", "channels"],
    }  # fmt: skip
    assert features["chunk.raw"]["shape"] == [HORIZON, 7]
    assert {"timestamp", "frame_index", "episode_index", "index", "task_index"} <= set(features)
    assert not any("/" in name for name in features)
    assert not any(
        name.startswith("action") for name in set(features) - {"action"}
    )  # would be taken for actions


def test_every_column_has_the_type_that_its_feature_announces(dataset: Path) -> None:
    features = info(dataset)["features"]
    for path in (dataset / "data").glob("*/*.parquet"):
        schema = parquet.read_schema(path)
        assert set(schema.names) == set(features)
        for name, feature in features.items():
            shape, kind = feature["shape"], schema.field(name).type
            if feature["dtype"] == "image":
                assert kind == pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
            elif shape == [1]:
                assert kind == VALUES[feature["dtype"]]
            elif len(shape) == 1:
                assert kind == pyarrow.list_(pyarrow.float32(), shape[0])
            else:
                assert kind == pyarrow.list_(pyarrow.list_(pyarrow.float32()))


def test_frames_lie_where_the_episodes_say(dataset: Path) -> None:
    frames = rows(dataset)
    assert [row["index"] for row in frames] == list(range(5))
    assert [row["episode_index"] for row in frames] == [0, 0, 1, 1, 1]
    assert [row["frame_index"] for row in frames] == [0, 1, 0, 1, 2]
    assert [row["timestamp"] for row in frames] == [0.0, 1.0, 0.0, 1.0, 2.0]
    assert [row["record.seq"] for row in frames] == [0, 2, 1, 3, 4]
    np.testing.assert_allclose([row["record.time_s"] for row in frames], [0.0, 1.0, 0.0, 1.0, 1.5])
    episodes = parquet.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for number, (begin, end) in enumerate([(0, 2), (2, 5)]):
        episode = episodes[number]
        assert (episode["episode_index"], episode["length"]) == (number, end - begin)
        assert (episode["dataset_from_index"], episode["dataset_to_index"]) == (begin, end)
        path = info(dataset)["data_path"].format(
            chunk_index=episode["data/chunk_index"], file_index=episode["data/file_index"]
        )
        found = parquet.read_table(dataset / path, columns=["episode_index"])["episode_index"].to_pylist()
        assert found == [number] * (end - begin)
    assert [episode["tasks"] for episode in episodes] == [
        ["pick the plate"],
        ["pick the cup", "pick the plate"],
    ]


def test_a_frame_holds_what_was_recorded(dataset: Path) -> None:
    row = rows(dataset)[3]  # the fourth request
    np.testing.assert_array_equal(row["observation.state"], np.arange(7, dtype=np.float32) + 3)
    served = np.array(row["chunk.served"], np.float32)
    np.testing.assert_array_equal(np.array(row["chunk.raw"], np.float32), 2 * served)
    assert row["record.row"] == 2
    np.testing.assert_array_equal(np.array(row["action"], np.float32), served[2])
    assert row["observation.images.base"] == {"bytes": jpeg(32, seed=3), "path": None}  # as it was recorded
    raw = row["observation.images.wrist"]["bytes"]
    assert raw.startswith(b"\x89PNG")
    np.testing.assert_array_equal(rgb(frame_from(raw)), picture(24, seed=3))  # nothing is lost


def test_tasks_are_a_pandas_table_with_the_instruction_as_its_index(dataset: Path) -> None:
    table = parquet.read_table(dataset / "meta" / "tasks.parquet")
    described = json.loads(table.schema.metadata[b"pandas"])
    assert described["index_columns"] == ["__index_level_0__"]
    assert table["__index_level_0__"].to_pylist() == ["pick the plate", "pick the cup"]
    assert table["task_index"].to_pylist() == [0, 1]
    assert [row["task_index"] for row in rows(dataset)] == [0, 0, 1, 1, 0]


def test_statistics_are_those_of_the_frames(dataset: Path) -> None:
    found = json.loads((dataset / "meta" / "stats.json").read_text())
    frames = rows(dataset)
    for name in ("action", "observation.state"):
        values = np.array([row[name] for row in frames], np.float64)
        assert set(found[name]) == STATS
        np.testing.assert_allclose(found[name]["mean"], values.mean(0))
        np.testing.assert_allclose(found[name]["std"], values.std(0))
        np.testing.assert_allclose(found[name]["min"], values.min(0))
        np.testing.assert_allclose(found[name]["max"], values.max(0))
        assert found[name]["count"] == [5]
    pictures = np.array([rgb(Frame(jpeg(32, seed=seed), "jpeg"))[::4, ::4] for seed in range(5)]) / 255
    image = found["observation.images.base"]
    assert np.shape(image["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(image["mean"]), pictures.mean((0, 1, 2)))
    np.testing.assert_allclose(np.ravel(image["std"]), pictures.std((0, 1, 2)))
    episodes = parquet.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    second = np.array([row["action"] for row in frames[2:]], np.float64)
    np.testing.assert_allclose(episodes[1]["stats/action/q50"], np.median(second, axis=0))


def test_more_frames_than_one_group_are_written_in_order(tmp_path: Path, capsys: Output) -> None:
    trace = trace_of(tmp_path / "traces", ["one"] * 70)
    assert exported(capsys, trace, "--format", "lerobot", "--output", tmp_path / "set").status == 0
    path = tmp_path / "set/data/chunk-000/file-000.parquet"
    assert parquet.ParquetFile(path).num_row_groups == 3
    assert [row["record.seq"] for row in rows(tmp_path / "set")] == list(range(70))
    assert info(tmp_path / "set")["fps"] == round(1e9 / (10 * DT_NS))


def test_without_pyarrow_one_sentence_says_what_to_install(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = trace_of(tmp_path / "traces", ["one"])
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    done = exported(capsys, trace, "--format", "lerobot", "--output", tmp_path / "set")
    assert done.status == 1
    assert "pip install 'reflex_ros[lerobot]'" in done.err
    assert not (tmp_path / "set").exists()
