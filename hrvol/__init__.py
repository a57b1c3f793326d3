"""hrvol: segment very large tomography volumes with features of frozen vision transformers.

Importing this package imports neither torch, dask nor napari: names below load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser, load_featuriser
    from hrvol.recipe import Recipe
    from hrvol.run.cluster import cluster_volume, fit_classes
    from hrvol.run.detect import detect_objects
    from hrvol.run.pca import pca_picture
    from hrvol.run.pipeline import extract_features, train_model
    from hrvol.run.pyramid import build_pyramid
    from hrvol.run.segment import segment_volume
    from hrvol.run.similar import find_similar
    from hrvol.run.status import run_status
    from hrvol.run.stop import stop_signals
    from hrvol.run.tune import tune_recipe
    from hrvol.segment.model import Model, load_model, save_model
    from hrvol.volume.store import Volume, open_volume

__version__ = "0.1.0"

_HOME = {
    "Featuriser": "hrvol.features.featuriser",
    "Model": "hrvol.segment.model",
    "Recipe": "hrvol.recipe",
    "Volume": "hrvol.volume.store",
    "build_pyramid": "hrvol.run.pyramid",
    "cluster_volume": "hrvol.run.cluster",
    "detect_objects": "hrvol.run.detect",
    "extract_features": "hrvol.run.pipeline",
    "find_similar": "hrvol.run.similar",
    "fit_classes": "hrvol.run.cluster",
    "load_featuriser": "hrvol.features.featuriser",
    "load_model": "hrvol.segment.model",
    "open_volume": "hrvol.volume.store",
    "pca_picture": "hrvol.run.pca",
    "run_status": "hrvol.run.status",
    "save_model": "hrvol.segment.model",
    "segment_volume": "hrvol.run.segment",
    "stop_signals": "hrvol.run.stop",
    "train_model": "hrvol.run.pipeline",
    "tune_recipe": "hrvol.run.tune",
}

__all__ = [
    "Featuriser",
    "Model",
    "Recipe",
    "Volume",
    "__version__",
    "build_pyramid",
    "cluster_volume",
    "detect_objects",
    "extract_features",
    "find_similar",
    "fit_classes",
    "load_featuriser",
    "load_model",
    "open_volume",
    "pca_picture",
    "run_status",
    "save_model",
    "segment_volume",
    "stop_signals",
    "train_model",
    "tune_recipe",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'hrvol' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
