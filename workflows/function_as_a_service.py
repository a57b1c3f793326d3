"""Segment a volume as a function that runs wherever hrvol is installed: Globus Compute, Ray, AWS Lambda, ...

``segment`` needs nothing of this file: its imports are inside, its argument and its result are JSON, and it
keeps no state, so services can send it as it stands. With Globus Compute (package globus-compute-sdk):

    from globus_compute_sdk import Client, Executor
    from function_as_a_service import segment

    function = Client().register_function(segment)  # once: a UUID to call it by, from any program
    request = {"volume": "/data/a.ome.zarr", "labels": "/data/a_labels.ome.zarr", "model": "/data/m.hrvol"}
    with Executor(endpoint_id="...") as executor:
        print(executor.submit_to_registered_function(function, args=(request,)).result())

Call it again with the same request to resume: a call that reaches the time limit of its service loses the
blocks in progress, no others. For a test: python function_as_a_service.py '{"volume": ...}'
"""


def segment(request: dict) -> dict:
    """Segment a volume; return what became of it, also if it fails.

    Parameters
    ----------
    request
        JSON values: ``volume``, ``labels`` (the OME-Zarr to write) and ``model``, paths or URLs where the
        function runs; optional are keywords of ``hrvol.segment_volume``, such as ``workers``,
        ``device``, ``uncertainty``, ``storage_options``, and ``roi`` as text, ``"z0:z1,y0:y1,x0:x1"``.

    Returns
    -------
    dict
        JSON values: ``state`` (``complete``, ``failed`` or ``stopped``), ``labels``, ``error`` (one line, or
        null), ``resumable`` (whether the same call may succeed later), and of a run ``voxels``, ``seconds``,
        ``fractions`` (by class) and ``failed_blocks``.
    """
    import hrvol
    from hrvol.errors import HrvolError, StoppedError, UsageError

    options = dict(request)
    result = {"state": "failed", "labels": options.get("labels"), "error": None, "resumable": False}
    try:
        volume, labels, model = (options.pop(name) for name in ("volume", "labels", "model"))
        if isinstance(options.get("roi"), str):
            ends = [axis.split(":") for axis in options["roi"].split(",")]
            options["roi"] = tuple(slice(*(int(end) if end else None for end in pair)) for pair in ends)
        options.setdefault("engine", "serial")  # "local" starts processes, which not every service allows
        report = hrvol.segment_volume(volume, labels, model, **options)
    except KeyError as error:
        return result | {"error": f"request: found no {error.args[0]}, expected volume, labels and model"}
    except (TypeError, ValueError) as error:
        return result | {"error": f"request: {type(error).__name__}: {error}"}
    except StoppedError as error:
        return result | {"state": "stopped", "error": str(error), "resumable": True}
    except (HrvolError, OSError) as error:
        usage = isinstance(error, UsageError)
        return result | {"error": " ".join(str(error).split()), "resumable": not usage}
    failed = [{"block": list(one.index), "reason": one.reason} for one in report.failed]
    return result | {
        "state": "failed" if failed else "complete",
        "error": f"{len(failed)} blocks failed: {failed[0]['reason']}" if failed else None,
        "resumable": bool(failed),
        "voxels": report.voxels,
        "seconds": round(report.seconds, 3),
        "fractions": report.fractions,
        "failed_blocks": failed,
    }


if __name__ == "__main__":
    import json
    import sys

    print(json.dumps(segment(json.loads(sys.argv[1])), indent=2))
