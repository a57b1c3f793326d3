"""Segment very large tomography volumes with features of frozen vision transformers.

The public names below are imported on first use: importing this package imports neither torch, dask nor
napari.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from hrvol.analysis.evaluate import evaluate_volumes
    from hrvol.analysis.measuring.measure_labels import measure_labels
    from hrvol.distil.distil import distil_model
    from hrvol.engine.stop import stop_signals
    from hrvol.explore.detect import detect_objects
    from hrvol.explore.pca import pca_picture
    from hrvol.explore.similar import find_similar
    from hrvol.features.featuriser import Featuriser, load_featuriser
    from hrvol.info import describe
    from hrvol.interactive.remote.connection import connect
    from hrvol.interactive.session import Session
    from hrvol.interactive.suggest import suggest_places
    from hrvol.planning.plan_run import plan_run
    from hrvol.recipe.recipe import Recipe
    from hrvol.report.write_report import write_report
    from hrvol.run.clean.clean_labels import clean_labels
    from hrvol.run.cluster import cluster_volume
    from hrvol.run.convert.convert_volume import convert_volume
    from hrvol.run.export.export_volume import export_volume
    from hrvol.run.extract_features import extract_features
    from hrvol.run.instances.separate_instances import separate_instances
    from hrvol.run.pyramid.build_pyramid import build_pyramid
    from hrvol.run.segment import segment_volume
    from hrvol.run.status import run_status
    from hrvol.segment.model.model import Model, load_model, save_model
    from hrvol.series.run_series import run_series
    from hrvol.training.cluster import fit_classes
    from hrvol.training.merging import merge_classes
    from hrvol.training.train import train_model
    from hrvol.training.tuning.tune import tune_recipe
    from hrvol.volume.drawing_store.store import DrawingStore
    from hrvol.volume.read_options import RawLayout, ReadOptions
    from hrvol.volume.strokes.source import StrokesSource
    from hrvol.volume.volume import Volume, open_volume

_HOME = {
    "DrawingStore": "hrvol.volume.drawing_store.store",
    "Featuriser": "hrvol.features.featuriser",
    "Model": "hrvol.segment.model.model",
    "RawLayout": "hrvol.volume.read_options",
    "ReadOptions": "hrvol.volume.read_options",
    "Recipe": "hrvol.recipe.recipe",
    "Session": "hrvol.interactive.session",
    "StrokesSource": "hrvol.volume.strokes.source",
    "Volume": "hrvol.volume.volume",
    "build_pyramid": "hrvol.run.pyramid.build_pyramid",
    "clean_labels": "hrvol.run.clean.clean_labels",
    "cluster_volume": "hrvol.run.cluster",
    "connect": "hrvol.interactive.remote.connection",
    "convert_volume": "hrvol.run.convert.convert_volume",
    "describe": "hrvol.info",
    "detect_objects": "hrvol.explore.detect",
    "distil_model": "hrvol.distil.distil",
    "evaluate_volumes": "hrvol.analysis.evaluate",
    "export_volume": "hrvol.run.export.export_volume",
    "extract_features": "hrvol.run.extract_features",
    "find_similar": "hrvol.explore.similar",
    "fit_classes": "hrvol.training.cluster",
    "load_featuriser": "hrvol.features.featuriser",
    "load_model": "hrvol.segment.model.model",
    "measure_labels": "hrvol.analysis.measuring.measure_labels",
    "merge_classes": "hrvol.training.merging",
    "open_volume": "hrvol.volume.volume",
    "pca_picture": "hrvol.explore.pca",
    "plan_run": "hrvol.planning.plan_run",
    "run_series": "hrvol.series.run_series",
    "run_status": "hrvol.run.status",
    "save_model": "hrvol.segment.model.model",
    "segment_volume": "hrvol.run.segment",
    "separate_instances": "hrvol.run.instances.separate_instances",
    "stop_signals": "hrvol.engine.stop",
    "suggest_places": "hrvol.interactive.suggest",
    "train_model": "hrvol.training.train",
    "tune_recipe": "hrvol.training.tuning.tune",
    "write_report": "hrvol.report.write_report",
}

__all__ = [
    "DrawingStore",
    "Featuriser",
    "Model",
    "RawLayout",
    "ReadOptions",
    "Recipe",
    "Session",
    "StrokesSource",
    "Volume",
    "__version__",
    "build_pyramid",
    "clean_labels",
    "cluster_volume",
    "connect",
    "convert_volume",
    "describe",
    "detect_objects",
    "distil_model",
    "evaluate_volumes",
    "export_volume",
    "extract_features",
    "find_similar",
    "fit_classes",
    "load_featuriser",
    "load_model",
    "measure_labels",
    "merge_classes",
    "open_volume",
    "pca_picture",
    "plan_run",
    "run_series",
    "run_status",
    "save_model",
    "segment_volume",
    "separate_instances",
    "stop_signals",
    "suggest_places",
    "train_model",
    "tune_recipe",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("hrvol.version").VERSION
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'hrvol' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
