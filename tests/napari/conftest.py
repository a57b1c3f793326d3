"""A real napari window without a display, and the plugin's manifest in it."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from run_data import make_volume

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Folders:
    """Where the plugin and napari keep things, and the user's folder of weights."""

    folder: Path
    weights: str | None


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory):
    """Neither napari's settings nor the plugin's cache are those of the user."""
    weights = os.environ.get("HRVOL_CACHE_DIR")
    folder = tmp_path_factory.mktemp("napari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_CONFIG", str(folder / "settings.yaml"))
        patch.setenv("HRVOL_CACHE_DIR", str(folder / "cache"))
        if "DISPLAY" not in os.environ:
            patch.setenv("QT_QPA_PLATFORM", "offscreen")
        yield Folders(folder, weights)


@pytest.fixture(scope="session")
def plugin(own_folders):
    """The plugin, registered by its manifest, as an installation does by its entry point."""
    pytest.importorskip("npe2", reason="napari is not installed")
    from npe2 import PluginManager, PluginManifest

    manager = PluginManager.instance()
    manager.discover()
    if "hrvol" not in manager:
        manager.register(PluginManifest.from_file(ROOT / "hrvol" / "napari" / "napari.yaml"))
    return manager


@pytest.fixture(scope="session")
def window(plugin):
    """A viewer; napari closes its application with the last one, so all tests share it."""
    pytest.importorskip("qtpy", reason="no binding of Qt is installed", exc_type=ImportError)
    try:
        from qtpy.QtWidgets import QApplication
    except ImportError as error:
        pytest.skip(f"no binding of Qt is installed: {error}")
    import vispy.gloo.gl as names
    import vispy.gloo.gl._pyopengl2 as backend

    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("QT_QPA_PLATFORM") == "offscreen":  # Qt has no OpenGL there: nothing is drawn
            patch.setattr(
                backend, "glGetParameter", lambda name: "" if name == names.GL_EXTENSIONS else 16384
            )
        import napari

        viewer = napari.Viewer(show=False)
        yield viewer
        viewer.close()
        QApplication.processEvents()


@pytest.fixture
def viewer(window):
    """The viewer without layers, and without notifications of earlier tests."""
    from napari.utils.notifications import notification_manager

    window.layers.clear()
    notification_manager.records.clear()
    yield window
    window.layers.clear()


@pytest.fixture
def news():
    """A function that returns the notifications so far: severity and text."""
    from napari.utils.notifications import ErrorNotification, notification_manager

    def lines():
        records = list(notification_manager.records)
        # An ErrorNotification is one with a traceback.
        assert not [record for record in records if isinstance(record, ErrorNotification)]
        assert all("\n" not in record.message for record in records)
        return [(str(record.severity), record.message) for record in records]

    return lines


@pytest.fixture(scope="session")
def wait():
    """A function that runs Qt's events until a condition holds."""

    def until(condition, seconds=150):
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "not within the time"
            QApplication.processEvents()
            time.sleep(0.005)
        return condition()

    return until


@pytest.fixture(scope="session")
def grey():
    """Grey values that are large enough to have a coarser level."""
    image, _ = make_volume(shape=(4, 300, 260))
    return image


@pytest.fixture(scope="session")
def files(tmp_path_factory, grey, model):
    """A volume of nanometres as OME-Zarr, and a model of it."""
    import hrvol
    from hrvol.volume.volume import open_volume
    from hrvol.volume.write_image import write_image

    folder = tmp_path_factory.mktemp("files")
    placed = {"voxel_size": (50.0, 4.0, 4.0), "unit": "nanometer", "translation": (100.0, 40.0, 0.0)}
    write_image(folder / "volume.ome.zarr", replace(open_volume(grey), **placed))
    hrvol.save_model(model, folder / "model.hrvol")
    return folder


@pytest.fixture(scope="session")
def output(files):
    """A finished output with all that it may hold."""
    import hrvol

    out = files / "finished.ome.zarr"
    hrvol.segment_volume(
        files / "volume.ome.zarr",
        out,
        files / "model.hrvol",
        engine="serial",
        probabilities=True,
        uncertainty=True,
    )
    return out
