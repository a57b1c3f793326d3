"""Turn a workflow file into tasks in an order in which they can be done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hrvol.errors import WorkflowError
from hrvol.reading.explain import KeyPath, Position, explain
from hrvol.series.file_values import FileValues
from hrvol.series.options_spec import StepSpec, combined
from hrvol.series.tasks import FOUND, Pair, Task, exists, groups_of, normal, slug, slugs
from hrvol.series.templates import placeholders
from hrvol.series.volumes import SeriesVolume, find_volumes
from hrvol.series.workflow_file import Workflow, read_workflow
from hrvol.text import listed


@dataclass(frozen=True)
class SeriesPlan:
    """A workflow with its volumes and tasks.

    Attributes
    ----------
    workflow
        The file.
    volumes
        In the order of the file.
    tasks
        Each after those that it needs.
    """

    workflow: Workflow
    volumes: tuple[SeriesVolume, ...]
    tasks: tuple[Task, ...]

    @property
    def out(self) -> Path:
        """Folder of the outputs."""
        return self.workflow.out

    @property
    def table(self) -> str | None:
        """File of the table that the workflow names."""
        table = self.workflow.spec.table
        return None if table is None else self.workflow.resolved(table, self.out)

    def paths(self) -> dict[str, str]:
        """Return the paths of the volumes by their names."""
        return {volume.name: volume.path for volume in self.volumes}


def plan_series(file: str | Path) -> SeriesPlan:
    """Read a workflow file and plan its tasks. No volume is opened.

    Raises
    ------
    WorkflowError
        The file is wrong, or what it names does not exist or does not fit together; the message starts with
        ``file:line:column``.
    """
    workflow = read_workflow(file)
    volumes = find_volumes(workflow)
    planner = _Planner(workflow, volumes)
    planner.conversions()
    planner.series_steps()
    for volume in planner.volumes:
        planner.volume_steps(volume)
    return SeriesPlan(workflow, volumes, tuple(planner.tasks))


class _Planner(FileValues):
    """Collects tasks; ``tasks`` is the result."""

    def __init__(self, workflow: Workflow, volumes: Sequence[SeriesVolume]) -> None:
        super().__init__(workflow)
        self.volumes = tuple(volumes)
        self.steps = workflow.spec.steps
        self.tasks: list[Task] = []
        self.slugs = slugs(volume.name for volume in volumes)
        self.producers: dict[str, Task] = {}
        self.labels: dict[str, Task] = {}  # by the name of the volume
        self.student: Task | None = None  # of all volumes
        self.converted: set[str] = set()  # names of volumes
        self._chosen: dict[KeyPath, dict[str, SeriesVolume]] = {}

    def chosen(self, spec: StepSpec | None, keys: KeyPath) -> dict[str, SeriesVolume]:
        """Return the volumes that a step is for, by their names."""
        if keys not in self._chosen:
            self._chosen[keys] = {} if spec is None else {v.name: v for v in self._fitting(spec, keys)}
        return self._chosen[keys]

    def _fitting(self, spec: StepSpec, keys: KeyPath) -> Iterator[SeriesVolume]:
        patterns = ("*",) if spec.volumes is None else spec.volumes
        for index, pattern in enumerate(patterns):
            if not any(fnmatchcase(volume.name, pattern) for volume in self.volumes):
                names = listed(volume.name for volume in self.volumes)
                raise self.workflow.error(
                    (*keys, "volumes", index), f"found {pattern!r}, expected names of volumes: {names}"
                )
        yield from (v for v in self.volumes if any(fnmatchcase(v.name, one) for one in patterns))

    def spec_for(self, step: str, spec: Any, volume: SeriesVolume) -> Any:
        """Return the settings of a step for a volume."""
        own = getattr(volume.spec, step, None)
        keys = ("volumes", volume.section, step)
        if own is not None and own.volumes is not None:
            raise self.workflow.error((*keys, "volumes"), "found volumes of one volume, expected none")
        try:
            return combined(spec, own)
        except ValidationError as error:

            def locate(path: KeyPath, of_key: bool) -> Position:
                return self.workflow.locate((*keys, *path), of_key)

            raise WorkflowError(explain(error, type(spec), str(self.workflow.path), locate)) from None

    def add(self, task: Task, keys: KeyPath) -> Task:
        """Add a task after those whose outputs it reads; refuse a second writer of a path."""
        needs = [self.producers[normal(path)].id for path in task.inputs if normal(path) in self.producers]
        task = replace(task, needs=tuple(dict.fromkeys(needs)))
        for output in task.outputs:
            other = self.producers.get(normal(output))
            if other is not None:
                raise self.workflow.error(
                    (*keys, "output"),
                    f"found {output} as output of {other.id} and {task.id}, expected different ones"
                    " (such as {name} in it)",
                )
        self.producers |= {normal(output): task for output in task.outputs}
        self.tasks.append(task)
        return task

    # Conversions

    def conversions(self) -> None:
        """Add the conversions; the other steps read what they write."""
        spec, keys = self.steps.convert, ("steps", "convert")
        chosen, volumes = self.chosen(spec, keys), []
        for volume in self.volumes:
            if volume.name in chosen:
                own = self.spec_for("convert", spec, volume)
                task = self._add("convert", volume, own, keys, {"volume": volume.path})
                volume = replace(volume, path=task.output)
                self.converted.add(volume.name)
            volumes.append(volume)
        self.volumes = tuple(volumes)
        self._chosen.clear()

    # Steps for several volumes

    def series_steps(self) -> None:
        for step in ("tune", "train"):
            self._on_strokes(step)
        cluster = self.steps.cluster
        if cluster is not None and cluster.model is not None:
            keys = ("steps", "cluster")
            volumes = list(self.chosen(cluster, keys).values())
            if len(volumes) != 1:
                raise self.workflow.error(
                    (*keys, "model"),
                    f"found {len(volumes)} volumes for one model, expected volumes: [NAME] beside it",
                )
            self._cluster(volumes[0])

    def _on_strokes(self, step: str) -> None:
        """Add the tasks of ``tune`` or ``train``: one for each output."""
        spec: Any = getattr(self.steps, step)
        keys = ("steps", step)
        if spec is None:
            return
        volumes = self.chosen(spec, keys).values()
        outputs = {v.name: self.write_path((*keys, "output"), spec.output, v) for v in volumes}
        groups = groups_of(volumes, outputs)
        of_groups = slugs(Path(output).name.partition(".")[0] for output in groups)
        common, resolved = self.workflow.spec.reading, self.workflow.resolved
        extra = [
            Pair(resolved(pair.volume), resolved(pair.strokes), combined(common, pair.reading), pair.offset)
            for pair in spec.pairs
        ]
        for output, members in groups.items():
            pairs = [
                Pair(v.path, strokes, self.reading(v), v.spec.strokes_offset, v.name in self.converted)
                for v in members
                if (strokes := self._optional(step, spec, v, v.strokes, "strokes"))
            ]
            if not pairs and not extra:
                sought = "" if spec.strokes is None else f" as {spec.strokes}"
                raise self.workflow.error(
                    (*keys, "strokes"), f"found no strokes of {members[0].name}{sought}, expected some"
                )
            several = bool(placeholders(spec.output))
            key = slug(Path(output).name.partition(".")[0])
            recipe = self.recipe(spec.recipe)
            if step == "train" and recipe is None and self.steps.tune is not None:
                recipe = self.write_path(("steps", "tune", "output"), self.steps.tune.output, members[0])
            task = Task(
                f"{step}.{of_groups.get(key, key)}" if several else step,
                step,
                members[0].name if several and len(members) == 1 else None,
                spec,
                self.compute(spec),
                output,
                self.recipe_file(recipe),
                (*pairs, *extra),
                recipe,
            )
            self.add(task, keys)

    def _optional(self, step: str, spec: Any, volume: SeriesVolume, own: str | None, role: str) -> str | None:
        """Return a path that volumes may have: their own, or that of a template if there is such a file."""
        template = getattr(spec, role)
        path = own
        if path is None and template is not None:
            path = self.read_path(("steps", step, role), template, volume)
            if not exists(path) and spec.volumes is None:
                return None
        if path is None and spec.volumes is not None:
            raise self.workflow.error(
                ("steps", step, "volumes"), f"found {volume.name}, which has no {role}, expected some"
            )
        if path is not None and not exists(path):
            raise self.workflow.error(
                ("volumes", volume.section) if own else ("steps", step, role),
                f"found no file {path}, expected the {role} of {volume.name}",
            )
        return path

    # Steps of one volume

    def volume_steps(self, volume: SeriesVolume) -> None:
        steps = self.steps
        cluster = steps.cluster
        chosen = self.chosen(cluster, ("steps", "cluster"))
        if cluster is not None and cluster.model is None and volume.name in chosen:
            self._cluster(volume)
        to_segment = volume.name in self.chosen(steps.segment, ("steps", "segment"))
        if volume.name not in self.labels and to_segment:
            if volume.name in self.chosen(steps.distil, ("steps", "distil")):
                self._distil(volume)
            self._segment(volume)
        labels = self.labels.get(volume.name)
        if labels is None:
            return
        keys: KeyPath = ("steps", "evaluate")
        if volume.name in self.chosen(steps.evaluate, keys):
            spec = self.spec_for("evaluate", steps.evaluate, volume)
            truth = self._optional("evaluate", spec, volume, volume.truth, "truth")
            if truth is not None:
                self._add("evaluate", volume, spec, keys, {"labels": labels.output, "truth": truth})
        for number, export in enumerate(steps.export):
            keys = ("steps", "export", number)
            if volume.name in self.chosen(export, keys):
                step = f"export{number + 1}" if number else "export"
                source = volume.path if export.what == "image" else labels.output
                self._add(step, volume, export, keys, {"labels": source})

    def _add(
        self, step: str, volume: SeriesVolume, spec: Any, keys: KeyPath, paths: Mapping[str, str]
    ) -> Task:
        """Add a task of one volume."""
        url = getattr(spec, "url", None)
        task = Task(
            f"{step}.{self.slugs[volume.name]}",
            step,
            volume.name,
            spec,
            self.compute(spec),
            self.write_path((*keys, "output"), spec.output, volume),
            paths,
            recipe=self.recipe(getattr(spec, "recipe", None)),
            roi=self.roi((*keys, "roi"), getattr(spec, "roi", None), volume),
            url=None if url is None else self.fill((*keys, "url"), url, volume),
            reading=self.reading(volume),
            converted=volume.path if volume.name in self.converted else None,
        )
        return self.add(task, keys)

    def _cluster(self, volume: SeriesVolume) -> None:
        keys = ("steps", "cluster")
        spec = self.spec_for("cluster", self.steps.cluster, volume)
        recipe = self.recipe_file(self.recipe(spec.recipe))
        paths = {"volume": volume.path, **recipe, **self._read(spec, volume, keys, ("mask",))}
        for role, template in (("boxes", spec.boxes), ("classes_model", spec.model)):
            if template is not None:
                name = "model" if role == "classes_model" else role
                paths[role] = self.write_path((*keys, name), template, volume)
        self.labels[volume.name] = self._add("cluster", volume, spec, keys, paths)

    def _distil(self, volume: SeriesVolume) -> None:
        """Add the task that makes the student of a volume, unless another volume's is its own, too."""
        keys = ("steps", "distil")
        distil = self.steps.distil
        assert distil is not None
        shared = not placeholders(distil.output)
        if shared:
            if self.student is not None:
                return
            name = distil.on or next(iter(self.chosen(distil, keys)))
            found = next((one for one in self.volumes if one.name == name), None)
            if found is None:
                raise self.workflow.error((*keys, "on"), f"found {name!r}, expected the name of a volume")
            volume = found
        spec = self.spec_for("distil", distil, volume)
        model = self._model(spec, volume, keys, ("train", "cluster"))
        paths = {"volume": volume.path, "model": model, **self._read(spec, volume, keys, ("held_out",))}
        task = self._add("distil", volume, spec, keys, paths)
        if shared:
            self.student = self.tasks[-1] = replace(task, volume=None, id="distil")
            self.producers[normal(task.output)] = self.student

    def _segment(self, volume: SeriesVolume) -> None:
        keys = ("steps", "segment")
        spec = self.spec_for("segment", self.steps.segment, volume)
        paths = {
            "volume": volume.path,
            "model": self._model(spec, volume, keys, ("distil", "train", "cluster")),
            **self._read(spec, volume, keys, ("mask", "companion")),
        }
        self.labels[volume.name] = self._add("segment", volume, spec, keys, paths)

    def _read(self, spec: Any, volume: SeriesVolume, keys: KeyPath, roles: Sequence[str]) -> dict[str, str]:
        """Return the paths of templates that a section has; companions may be outputs, too."""
        found = {}
        for role in roles:
            template = getattr(spec, role)
            if template is not None:
                auto = role == "mask" and template == FOUND
                found[role] = FOUND if auto else self._input(keys, role, template, volume)
        return found

    def _input(self, keys: KeyPath, role: str, template: str, volume: SeriesVolume) -> str:
        """Return a path that is read: an output of an earlier task, or one from the folder of the file."""
        written = self.write_path((*keys, role), template, volume)
        if normal(written) in self.producers:
            return written
        return self.read_path((*keys, role), template, volume)

    def _model(self, spec: Any, volume: SeriesVolume, keys: KeyPath, makers: Sequence[str]) -> str:
        """Return the model of a step: the one that it names, or that of the first step that makes one."""
        if spec.model is not None:
            return self._input(keys, "model", spec.model, volume)
        for maker in makers:
            section = getattr(self.steps, maker)
            if section is None or (maker == "cluster" and section.model is None):
                continue
            if maker != "cluster" and volume.name not in self.chosen(section, ("steps", maker)):
                continue
            if maker == "cluster":
                return self.write_path(("steps", maker, "model"), section.model, volume)
            if maker == "distil":
                own = self.spec_for(maker, section, volume)
                return self.write_path(("steps", maker, "output"), own.output, volume)
            return self.write_path(("steps", maker, "output"), section.output, volume)
        raise self.workflow.error(
            keys, f"found no model for {volume.name}, expected model, or a step that makes one (train)"
        )
