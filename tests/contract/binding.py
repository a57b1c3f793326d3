"""Whether what hrvol asks of a package is there, and takes the arguments it is given."""

import inspect
from collections.abc import Iterable

from contract.calls import Use
from contract.signatures import Missing, Wheels

# Keywords that a class takes as ``**kwargs`` and hands on: to whom.
FORWARDED = {
    "cuml.dask.cluster.KMeans": ("cuml.cluster.KMeans",),
    "cuml.dask.ensemble.RandomForestClassifier": ("cuml.ensemble.RandomForestClassifier",),
    "dask_cuda.LocalCUDACluster": ("distributed.LocalCluster", "distributed.Nanny", "distributed.Worker"),
}


def problems(found: Iterable[Use], wheels: Wheels) -> list[str]:
    """Return a line for each use that would fail, in order."""
    return [f"{use.where}: {problem}" for use in found if (problem := _problem(use, wheels))]


def _problem(use: Use, wheels: Wheels) -> str | None:
    try:
        target = wheels.lookup(use.path)
    except Missing as error:
        return str(error)
    if use.arguments is None:
        return None
    signature = wheels.signature(target)
    positional, keywords = use.arguments
    bind = signature.bind_partial if use.some else signature.bind
    try:
        bind(*[None] * positional, **dict.fromkeys(keywords))
    except TypeError as error:
        return f"{use.path}{signature}: {error}"
    if use.path in FORWARDED:
        taken = _names(signature)
        for other in FORWARDED[use.path]:
            taken |= _names(wheels.signature(wheels.lookup(other)))
        unknown = [keyword for keyword in keywords if keyword not in taken]
        if unknown:
            return f"{use.path}{signature}: hands on {unknown}, which {FORWARDED[use.path]} do not take"
    return None


def _names(signature: inspect.Signature) -> set[str]:
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name for name, parameter in signature.parameters.items() if parameter.kind not in rest}
