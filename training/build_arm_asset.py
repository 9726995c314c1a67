# SPDX-License-Identifier: Apache-2.0
"""Builds reflex_ros/demo/assets/{panda.xml,panda_meshes.npz} once, from the gym-hil wheel.

    pip download --no-deps gym-hil==0.1.14 --dest DIR
    python -m training.build_arm_asset DIR/gym_hil-0.1.14-py3-none-any.whl

The wheel's Panda has 198,000 visual faces. A software renderer pays per vertex, so the visual meshes are
merged per link and colour and decimated by vertex clustering. Masses, inertias, joint frames and limits are
kept as they are.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np
from numpy.typing import NDArray

ASSETS = Path(__file__).resolve().parent.parent / "reflex_ros" / "demo" / "assets"
LINKS = ("link0", "link1", "link2", "link3", "link4", "link5", "link6", "link7", "attachment")
VISUAL_GROUP = 2
CELL_M = 0.009
POSITION_GAIN = (4500.0, 4500.0, 3500.0, 3500.0, 1000.0, 1000.0, 1000.0)
# Near critical damping. A motor at its torque limit loses the damping of the implicit integrator, and a
# larger gain on the light wrist then never comes to rest.
VELOCITY_GAIN = (200.0, 200.0, 150.0, 150.0, 25.0, 25.0, 25.0)
TORQUE_LIMIT_NM = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)
GRIPPER_MASS_KG = 0.9

Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]


def cluster_vertices(vertices: Vertices, faces: Faces, cell_m: float) -> tuple[Vertices, Faces]:
    """Merges all vertices of one grid cell into their mean and drops faces that collapse or repeat."""
    _, cell_of_vertex, count = np.unique(
        np.floor(vertices / cell_m).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    cell_of_vertex = cell_of_vertex.ravel()
    merged = np.zeros((len(count), 3))
    np.add.at(merged, cell_of_vertex, vertices)
    merged /= count[:, None]

    faces = cell_of_vertex[faces]
    sorted_faces = np.sort(faces, axis=1)
    has_area = (sorted_faces[:, 0] != sorted_faces[:, 1]) & (sorted_faces[:, 1] != sorted_faces[:, 2])
    faces, sorted_faces = faces[has_area], sorted_faces[has_area]
    _, first = np.unique(sorted_faces, axis=0, return_index=True)
    faces = faces[np.sort(first)]

    used, renumbered = np.unique(faces, return_inverse=True)
    return merged[used], renumbered.reshape(-1, 3)


def collect_visual_parts(
    model: Any, data: Any
) -> dict[tuple[str, tuple[float, ...]], tuple[Vertices, Faces]]:
    """Visual meshes joined per (link, rgba), in the link's frame; the gripper belongs to `attachment`."""
    link_of_body = {model.body(name).id: name for name in LINKS}
    pieces: dict[tuple[str, tuple[float, ...]], list[tuple[Vertices, Faces]]] = {}
    for geom in range(model.ngeom):
        mesh = model.geom_dataid[geom]
        body = model.geom_bodyid[geom]
        if model.geom_group[geom] != VISUAL_GROUP or mesh < 0 or body == 0:
            continue
        while body not in link_of_body:
            body = model.body_parentid[body]
        vertex_start, face_start = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh]
        vertices = model.mesh_vert[vertex_start : vertex_start + model.mesh_vertnum[mesh]]
        faces = model.mesh_face[face_start : face_start + model.mesh_facenum[mesh]]
        in_world = vertices @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
        in_link = (in_world - data.xpos[body]) @ data.xmat[body].reshape(3, 3)
        material = model.geom_matid[geom]
        rgba = model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]
        key = (link_of_body[body], tuple(round(float(channel), 3) for channel in rgba))
        pieces.setdefault(key, []).append((in_link, faces.astype(np.int64)))

    parts = {}
    for key in sorted(pieces):
        offsets = np.cumsum([0] + [len(vertices) for vertices, _ in pieces[key]])
        parts[key] = (
            np.concatenate([vertices for vertices, _ in pieces[key]]),
            np.concatenate(
                [faces + offset for (_, faces), offset in zip(pieces[key], offsets, strict=False)]
            ),
        )
    return parts


def numbers(values: Any) -> str:
    return " ".join(f"{value:.7g}" for value in np.asarray(values).ravel())


def build_arm_xml(model: Any, data: Any, geoms: list[tuple[str, str, tuple[float, ...]]]) -> str:
    """MJCF of the chain link0..attachment with position actuators; `geoms` is (mesh name, link, rgba)."""
    root = ElementTree.Element("mujoco", model="panda_lite")
    parent = ElementTree.SubElement(root, "worldbody")
    for name in LINKS:
        body = model.body(name).id
        parent = ElementTree.SubElement(
            parent,
            "body",
            name=name,
            pos=numbers(model.body_pos[body]),
            quat=numbers(model.body_quat[body]),
            gravcomp="1",
        )
        if name == "attachment":
            inertial = {"mass": str(GRIPPER_MASS_KG), "pos": "0 0 0.05", "diaginertia": "0.002 0.002 0.001"}
        else:
            inertial = {
                "mass": numbers(model.body_mass[body]),
                "pos": numbers(model.body_ipos[body]),
                "quat": numbers(model.body_iquat[body]),
                "diaginertia": numbers(np.maximum(model.body_inertia[body], 1e-6)),
            }
        ElementTree.SubElement(parent, "inertial", inertial)
        first_joint = model.body_jntadr[body]
        for joint in range(first_joint, first_joint + model.body_jntnum[body]):
            ElementTree.SubElement(
                parent, "joint", name="panda_" + model.joint(joint).name, axis=numbers(model.jnt_axis[joint]),
                range=numbers(model.jnt_range[joint]), armature="0.1", damping="1",
            )  # fmt: skip
        for mesh, link, rgba in geoms:
            if link == name:
                ElementTree.SubElement(
                    parent, "geom", type="mesh", mesh=mesh, rgba=numbers(rgba), group="2", contype="0",
                    conaffinity="0", mass="0",
                )  # fmt: skip
        if name == "attachment":
            site = model.site("pinch").id
            rotation = data.xmat[body].reshape(3, 3)
            quaternion = np.zeros(4)
            mujoco.mju_mat2Quat(quaternion, (rotation.T @ data.site_xmat[site].reshape(3, 3)).ravel())
            position = (data.site_xpos[site] - data.xpos[body]) @ rotation
            ElementTree.SubElement(
                parent,
                "site",
                name="end_effector",
                pos=numbers(position),
                quat=numbers(quaternion),
                rgba="0 0 0 0",
            )
    actuators = ElementTree.SubElement(root, "actuator")
    for index, (stiffness, damping, torque) in enumerate(
        zip(POSITION_GAIN, VELOCITY_GAIN, TORQUE_LIMIT_NM, strict=True)
    ):
        ElementTree.SubElement(
            actuators, "position", name=f"panda_joint{index + 1}", joint=f"panda_joint{index + 1}",
            kp=numbers(stiffness), kv=numbers(damping), forcerange=numbers((-torque, torque)),
        )  # fmt: skip
    ElementTree.indent(root)
    return "<!-- Generated by training/build_arm_asset.py; see README.md for sources and licences. -->\n" + (
        ElementTree.tostring(root, encoding="unicode") + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="gym_hil-0.1.14-py3-none-any.whl")
    wheel = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel).extractall(folder)
        model = mujoco.MjModel.from_xml_path(str(Path(folder) / "gym_hil" / "assets" / "panda.xml"))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)

    arrays: dict[str, NDArray[Any]] = {}
    geoms: list[tuple[str, str, tuple[float, ...]]] = []
    faces_before = faces_after = 0
    for (link, rgba), part in collect_visual_parts(model, data).items():
        faces_before += len(part[1])
        vertices, faces = cluster_vertices(*part, CELL_M)
        if len(faces) < 4:
            continue
        faces_after += len(faces)
        name = f"{link}_{len(geoms):02d}"
        arrays[f"{name}.vertices_m"] = vertices.astype(np.float16)
        arrays[f"{name}.faces"] = faces.astype(np.uint16)
        geoms.append((name, link, rgba))
    ASSETS.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(ASSETS / "panda_meshes.npz", allow_pickle=False, **arrays)
    (ASSETS / "panda.xml").write_text(build_arm_xml(model, data, geoms), encoding="utf-8")
    print(f"{faces_before} faces -> {faces_after} in {len(geoms)} parts")


if __name__ == "__main__":
    main()
