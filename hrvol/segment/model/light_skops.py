"""skops, imported in less than half the time."""

import sys

# When it is imported, skops walks over all of scikit-learn for the names of its estimators. The walk imports
# adapters to other array libraries on its way, and with them torch and dask.array: three seconds, where no
# estimator is. A module that is None cannot be imported, and the walk leaves it out.
_ADAPTERS = [f"sklearn.externals.array_api_compat.{name}" for name in ("torch", "dask", "cupy")]
_absent = [name for name in _ADAPTERS if name not in sys.modules]
try:
    for _name in _absent:
        sys.modules[_name] = None  # type: ignore[assignment]
    import skops.io
finally:
    for _name in _absent:
        del sys.modules[_name]

dumps, loads = skops.io.dumps, skops.io.loads
