"""Check that the names hrvol uses of a package exist and accept the arguments passed."""

import inspect
from collections.abc import Iterable

from contract.calls import Use
from contract.signatures import Missing, Wheels

# Classes to which a class forwards its ``**kwargs``.
FORWARDED = {
    "dask_cuda.LocalCUDACluster": ("distributed.LocalCluster", "distributed.Nanny", "distributed.Worker"),
}


def problems(uses: Iterable[Use], wheels: Wheels) -> list[str]:
    """Return one line per use that would fail, in order."""
    return [f"{use.where}: {problem}" for use in uses if (problem := _problem(use, wheels))]


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
        accepted = _names(signature)
        for other in FORWARDED[use.path]:
            accepted |= _names(wheels.signature(wheels.lookup(other)))
        unknown = [keyword for keyword in keywords if keyword not in accepted]
        if unknown:
            return f"{use.path}{signature}: forwards {unknown}, which {FORWARDED[use.path]} do not accept"
    return None


def _names(signature: inspect.Signature) -> set[str]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name for name, parameter in signature.parameters.items() if parameter.kind not in variadic}
