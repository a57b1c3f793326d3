"""Surfaces: closed, oriented, welded at the faces of blocks, and as large as the voxels."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.classes import default_classes
from hrvol.progress import Tally
from hrvol.run.export.meshes import MeshTarget, write_meshes
from hrvol.volume.exporters.content import Content
from hrvol.volume.exporters.mesh_files import PLY, STL
from hrvol.volume.exporters.surface import Welder, mesh_blocks, surface_of
from hrvol.volume.grid.tiling import whole
from hrvol.volume.volume import open_volume


def welded(mask, side):
    """Return the vertices, in half voxels, and faces of a mask, from blocks of a side."""
    padded = np.pad(mask, 1)
    welder, vertices, faces = Welder(), [], []
    for index, block in mesh_blocks(mask.shape, (side, side, side)):
        part = padded[tuple(slice(s.start, s.stop + 1) for s in block)]
        surface = surface_of(part, tuple(s.start for s in block))
        if surface is not None:
            numbers, new = welder.numbers(index, block, surface.vertices)
            vertices.append(surface.vertices[new])
            faces.append(numbers[surface.faces])
    return np.concatenate(vertices), np.concatenate(faces), welder


def is_closed(faces):
    """Whether each edge is in two triangles, once in either direction."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    once = np.unique(edges, axis=0)
    return len(once) == len(edges) and {*map(tuple, once)} == {(b, a) for a, b in map(tuple, once)}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.integers(2, 5), st.tuples(*[st.integers(1, 9)] * 3))
def test_noise_is_closed_and_equal_for_all_blocks(seed, share, side, shape):
    mask = np.random.default_rng(seed).random(shape) < share
    if not mask.any():
        return
    whole_vertices, whole_faces, _ = welded(mask, 100)
    vertices, faces, welder = welded(mask, side)
    assert len(vertices) == welder.count == len(np.unique(vertices, axis=0))  # none twice
    assert is_closed(faces)
    assert is_closed(whole_faces)
    assert {*map(tuple, vertices)} == {*map(tuple, whole_vertices)}
    assert len(faces) == len(whole_faces)


def test_only_faces_of_later_blocks_are_remembered():
    mask = np.random.default_rng(0).random((40, 12, 12)) < 0.4
    *_, welder = welded(mask, 4)
    assert not welder._known  # the last block shares no face


@pytest.mark.parametrize("form", [STL, PLY])
@pytest.mark.parametrize("memory", [2**24, 2**22])
def test_spheres_across_blocks_have_their_volume(tmp_path, form, memory):
    z, y, x = np.indices((90, 80, 101))
    labels = np.zeros(z.shape, np.uint8)
    labels[(z - 45) ** 2 + (y - 40) ** 2 + (x - 62) ** 2 < 36**2] = 2
    labels[(z - 64) ** 2 + (y - 40) ** 2 + (x - 64) ** 2 < 14**2] = 7
    labels[:20, :, :20] = 1  # ends at the border
    size = (2.0, 0.5, 0.25)
    targets = [
        MeshTarget(
            tmp_path / f"{info.value}{form.suffixes[0]}",
            form,
            Content(
                "s", "mesh", labels.shape, 3, labels.dtype, size, (10.0, 0.0, 5.0), "micrometer", (info,)
            ),
            info.value,
        )
        for info in default_classes([1, 2, 3, 7], ["rim", "ball", "nothing", "core"])
    ]
    done = []
    empty = write_meshes(
        open_volume(labels),
        whole(labels.shape),
        targets,
        lambda path: path,
        memory=memory,
        tally=Tally(lambda *report: done.append(report[1:]), "export", labels.size),
    )
    assert [target.value for target in empty] == [3]
    assert not targets[2].path.exists()
    assert done[-1] == (labels.size, labels.size)
    for target in (targets[0], targets[1], targets[3]):
        mesh = trimesh.load(target.path)
        assert mesh.is_watertight
        assert mesh.is_winding_consistent
        voxels = np.argwhere(labels == target.value)
        assert mesh.volume == pytest.approx(len(voxels) * np.prod(size), rel=0.01)
        low = voxels.min(0) * size - np.array(size) / 2 + (10, 0, 5)
        high = voxels.max(0) * size + np.array(size) / 2 + (10, 0, 5)
        np.testing.assert_allclose(mesh.bounds, [low[::-1], high[::-1]], rtol=1e-6)
        if form is PLY:
            colour = target.content.classes[0].colour
            assert np.all(mesh.visual.vertex_colors[:, :3] == colour)
            assert f"comment class {target.value} ".encode() in target.path.read_bytes()[:300]
