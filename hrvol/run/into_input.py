"""Segment an OME-Zarr image into its own labels.

The run itself is one like any other, in the folder ``labels/NAME.unfinished`` of the image: it is resumed
from there, and ``hrvol status`` shows it. When all blocks are done, its labels become ``labels/NAME``, and
the rest of the folder, with the ledger, is deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from hrvol.engine.stop import Stop
from hrvol.errors import BusyError, OtherRunError, OutputExistsError, StoppedError
from hrvol.progress import ProgressCallback
from hrvol.quality.metrics import SeamDisagreement
from hrvol.reading.schema import validated
from hrvol.run.ledger import check_free
from hrvol.run.options import RunOptions
from hrvol.run.prepare import prepare
from hrvol.run.provenance import Summary
from hrvol.run.report import SegmentReport
from hrvol.run.resume import DIFFERENCES_SHOWN, differences
from hrvol.segment.model.model import Model
from hrvol.text import printable
from hrvol.volume.ome.adopt import adopt
from hrvol.volume.ome.image_labels import LABELS, ImageGroup, check_name, find_image
from hrvol.volume.ome.label_documents import PROBABILITIES, UNCERTAINTY
from hrvol.volume.storage.drawn import check_not_drawn
from hrvol.volume.storage.location import MARK, Location

UNFINISHED = ".unfinished"

_OURS = (MARK, ".zgroup", ".zattrs", PROBABILITIES, UNCERTAINTY)
"""What labels consist of, besides their levels."""

_ADOPTING = ".adopting.json"
"""File in the folder of a run whose blocks are all done: what the labels will be described by."""


@dataclass(frozen=True)
class LabelPlace:
    """Where the labels of a name are in an image, and the run that makes them."""

    image: ImageGroup
    name: str

    @property
    def labels(self) -> Location:
        """The labels, once they are complete."""
        return Location.of(self.image.path / LABELS / self.name)

    @property
    def run(self) -> Location:
        """Output of the run."""
        return Location.of(self.image.path / LABELS / f"{self.name}{UNFINISHED}")

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.image.path / LABELS / f"{self.name}{UNFINISHED}"

    def finished(self) -> Mapping[str, Any] | None:
        """Return the provenance of labels whose blocks are all done; ``None`` if there are none.

        Raises
        ------
        OutputExistsError
            There are labels of this name that hrvol did not write into an image.
        """
        if self.labels.occupied() or self.name in self.image.names():
            found = (self.labels.attributes() or {}).get("hrvol")
            if not isinstance(found, Mapping) or "summary" not in found or "recipe" not in found:
                raise OutputExistsError(
                    f"{self.labels}: found labels that hrvol did not write there,"
                    " expected a free name (--name)"
                )
            return found
        found = self.run.read_json(_ADOPTING)
        return found if found is not None and "summary" in found else None

    def clear(self) -> None:
        """Delete earlier labels that hrvol wrote; they are taken from the list first."""
        check_not_drawn(self.labels)
        others = [name for name in self.labels.children() if not (name in _OURS or name.isdecimal())]
        if others:
            raise OutputExistsError(
                f"{self.labels}: found {printable(others[0], 100)}, expected only what hrvol wrote there;"
                " it is not overwritten"
            )
        self.image.unlist_labels(self.name)
        if self.labels.occupied():
            self.labels.remove()
        if self.run.read_json(_ADOPTING) is not None:
            shutil.rmtree(self.folder)


def find_place(volume: Any, name: str) -> LabelPlace:
    """Return where labels of a name belong in a volume.

    Raises
    ------
    InputError, UsageError
        The volume is no local OME-Zarr image, or the name cannot be used.
    """
    return LabelPlace(find_image(volume), check_name(name))


def segment_into_input(
    run: Callable[[Location], SegmentReport],
    volume: Any,
    model: str | Path | Model,
    options: RunOptions,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> SegmentReport:
    """Segment an OME-Zarr image into its own labels.

    Parameters
    ----------
    run
        Segments the volume into an output.
    volume, model, options, stop, progress
        As for :func:`hrvol.run.segment.segment`.

    Raises
    ------
    OutputExistsError
        There are labels of this name that hrvol did not write, or (:class:`OtherRunError`) wrote with other
        settings.
    """
    place = find_place(volume, options.output.name)
    earlier = place.finished()
    if earlier is not None and not options.output.overwrite:
        report = _report(earlier, place)
        _check_same(place, earlier, volume, model, options)
        _adopt(place, earlier, stop, progress)
        return report
    if options.output.overwrite:
        with ExitStack() as stack:  # everything is checked before anything is deleted
            prepare(volume, place.run, model, stack, options.placed()[0])
        check_free(place.run)
        place.clear()
    report = run(place.run)
    attributes = (place.run.attributes() or {}).get("hrvol")
    if isinstance(attributes, Mapping) and attributes.get("complete") is True and not report.failed:
        summary = {"blocks": report.blocks, "voxels": report.voxels, "fractions": report.fractions}
        finished = {**attributes, "summary": summary}
        try:
            check_free(place.run)
        except BusyError:  # another part, which will find all blocks done as well
            return report
        place.run.write_json(_ADOPTING, finished)
        _adopt(place, finished, stop, progress)
    return report


def _adopt(
    place: LabelPlace, finished: Mapping[str, Any], stop: Stop | None, progress: ProgressCallback | None
) -> None:
    """Make the labels of a complete run those of the image; one process at a time."""

    def copied(done: int, total: int) -> bool:
        if progress is not None:
            progress("write into the input", done, total)
        return stop is None or not stop.requested

    if not place.folder.exists():
        place.image.list_labels(place.name)
        return
    with FileLock(place.folder / ".lock"):
        if not adopt(place.folder, place.image, place.name, finished, copied):
            assert stop is not None
            raise StoppedError(
                f"{place.labels}: stopped before the labels were written; run the same command to resume",
                130 if stop.signal is not None and stop.signal.name == "SIGINT" else 75,
            )


def _check_same(
    place: LabelPlace,
    earlier: Mapping[str, Any],
    volume: Any,
    model: str | Path | Model,
    options: RunOptions,
) -> None:
    """Raise :class:`OtherRunError` if labels were made with other settings."""
    with ExitStack() as stack:
        prepared = prepare(volume, place.run, model, stack, options.placed()[0])
    changed = list(differences(earlier, prepared.attributes))
    if changed:
        more = f" and {len(changed) - DIFFERENCES_SHOWN} more" if len(changed) > DIFFERENCES_SHOWN else ""
        raise OtherRunError(
            f"{place.labels}: found labels made with other settings, expected the same settings or another"
            f" name (--name): {'; '.join(changed[:DIFFERENCES_SHOWN])}{more}"
        )


def _report(finished: Mapping[str, Any], place: LabelPlace) -> SegmentReport:
    """Return the report of labels that are complete already."""
    summary = validated(Summary, finished["summary"], f"{place.labels}: attributes")
    return SegmentReport(
        summary.blocks, summary.voxels, 0.0, summary.fractions, SeamDisagreement(), (), before=summary.voxels
    )
