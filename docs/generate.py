"""Write the pages of the site that come from the code: command line, API, recipe keys, measurements.

Run it before every build of the site: ``python docs/generate.py && zensical build --strict``. Git ignores
these pages, so they cannot go stale.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import griffe
import yaml

import hrvol
from hrvol.cli import main
from hrvol.recipe import specs
from hrvol.recipe.recipe import PRESETS, SUMMARIES, Recipe
from hrvol.series import convert_spec, options_spec, step_specs
from hrvol.series.spec import SeriesSpec, VolumeSpec
from hrvol.series.workflow_file import workflow_schema

DOCS = Path(__file__).parent

ROOT = DOCS.parent

BENCHMARKS = ROOT / "benchmarks"

API = {
    "Volumes": [
        *("open_volume", "ReadOptions", "RawLayout", "Volume", "describe", "convert_volume", "build_pyramid")
    ],
    "Recipes, features and models": [
        *("Recipe", "load_featuriser", "Featuriser", "load_model", "save_model", "Model")
    ],
    "Training": ["train_model", "tune_recipe", "fit_classes", "merge_classes", "StrokesSource"],
    "Runs": [
        *("segment_volume", "cluster_volume", "plan_run", "run_series", "run_status", "stop_signals"),
        *("evaluate_volumes", "export_volume", "clean_labels", "separate_instances"),
        *("measure_labels", "write_report"),
    ],
    "Interactive": ["Session", "DrawingStore", "connect"],
    "Exploring": ["detect_objects", "find_similar", "suggest_places", "pca_picture", "extract_features"],
}
"""Pages of the API and their names. A public name that is missing here lands on a page ``Other``."""


def write(path: str, text: str) -> None:
    """Write a page of the site; ``path`` is relative to ``docs``."""
    target = DOCS / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def escape(text: str) -> str:
    """Return plain text as Markdown that stands in a cell of a table."""
    return re.sub(r"([|*<_`\[\]])", r"\\\1", " ".join(text.split()))


# The command line


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and those below it, each with its whole name."""
    yield name, command
    if isinstance(command, click.Group):
        for child in sorted(command.commands):
            yield from commands(command.commands[child], f"{name} {child}")


def help_text(command: click.Command) -> str:
    """Return the help of a command as Markdown; examples become code blocks."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(_help_paragraph(paragraph) for paragraph in paragraphs)


def _help_paragraph(paragraph: str) -> str:
    lines = paragraph.splitlines()
    if lines[0] != "\b":
        return escape(paragraph)
    intro = [line for line in lines[1:] if not line.startswith("    ")]
    code = [line[4:] for line in lines[1:] if line.startswith("    ")]
    return escape(" ".join(intro)) + ("\n\n```bash\n" + "\n".join(code) + "\n```" if code else "")


def option_row(option: click.Option, context: click.Context) -> str:
    """Return the row of a table for an option."""
    shown = option.get_help_record(context)
    if shown is None:
        return ""
    record = re.sub(r"\s*\[[^\[\]]*x[<>][^\[\]]*\]$", "", shown[1])
    names = ", ".join((*option.opts, *option.secondary_opts))
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    value = value.replace("INTEGER RANGE", "N").replace("FLOAT RANGE", "NUMBER")
    return f"| `{names}{value}` | {escape(record)} |\n"


def command_page() -> str:
    """Return the page of the command line."""
    page = [
        "# Command line\n",
        "Made from the commands themselves, as `hrvol COMMAND --help` prints them. "
        "`python -m hrvol` is the same program. In a folder with Python files that are not yours, start it as"
        " `hrvol` or as `python -P -m hrvol`: without `-P` Python itself imports some of its modules from"
        " there.\n",
        "Exit codes: see [Errors and exit codes](errors.md).\n",
    ]
    for name, command in commands(main, "hrvol"):
        context = click.Context(command, info_name=name)
        usage = command.get_usage(context).removeprefix("Usage: ")
        page.append(f"## {name}\n\n```text\n{' '.join(usage.split())}\n```\n\n{help_text(command)}\n")
        if isinstance(command, click.Group):
            rows = (
                f"| [`{child}`](#{f'{name} {child}'.replace(' ', '-')}) | "
                f"{escape(command.commands[child].get_short_help_str(200))} |\n"
                for child in sorted(command.commands)
            )
            page.append("| command | |\n|---|---|\n" + "".join(rows))
            continue
        options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
        rows = (option_row(option, context) for option in options)
        page.append("| option | |\n|---|---|\n" + "".join(rows))
    return "\n".join(page)


# The API


def homes() -> dict[str, str]:
    """Return the module in which each public name is defined."""
    return {name: f"{module}.{name}" for name, module in hrvol._HOME.items()}


def result_classes(package: griffe.Module, paths: Mapping[str, str]) -> list[str]:
    """Return the classes that public functions return and that are not public names themselves."""
    found: dict[str, None] = {}
    for path in paths.values():
        item = package[path.removeprefix("hrvol.")]
        returned = item.returns if item.is_function else None
        if isinstance(returned, str) or returned is None:
            continue
        for part in returned.iterate(flat=True):
            name = getattr(part, "canonical_path", "")
            if name.startswith("hrvol.") and name not in paths.values() and package[name[6:]].is_class:
                found[name] = None
    return list(found)


def api_entry(path: str, name: str) -> str:
    """Return what mkdocstrings makes an entry of."""
    return f"::: {path}\n    options:\n      heading: {name}\n      toc_label: {name}\n"


def api_pages() -> None:
    """Write a page for each group of public names, and one with all of them in a table."""
    paths = homes()
    package = griffe.load("hrvol", search_paths=[str(ROOT)], docstring_parser="numpy")
    grouped = {name for names in API.values() for name in names}
    groups = {**API, "Other": [name for name in paths if name not in grouped]}
    index = [
        "# Python API\n",
        "Every name below is imported from `hrvol` itself (`hrvol.open_volume`, ...) and loaded on first "
        "use. Volumes, strokes and labels may be paths, URLs, or numpy, Dask, xarray or Zarr arrays.\n",
    ]
    for title, names in groups.items():
        present = [name for name in names if name in paths]
        if not present:
            continue
        page = f"reference/api/{title.split(',')[0].lower().replace(' ', '-')}.md"
        write(page, f"# {title}\n\n" + "\n".join(api_entry(paths[n], f"hrvol.{n}") for n in present))
        index.append(f"## {title}\n\n| name | |\n|---|---|")
        for name in present:
            docstring = package[paths[name].removeprefix("hrvol.")].docstring
            first = docstring.value.split("\n\n")[0] if docstring else ""
            index.append(f"| [`{name}`]({Path(page).name}#{paths[name]}) | {summary(first)} |")
        index.append("")
    results = result_classes(package, paths)
    write(
        "reference/api/results.md",
        "# Results\n\nWhat the functions return; import them from the modules named here.\n\n"
        + "\n".join(api_entry(path, path) for path in results),
    )
    index.append("## Results\n\nClasses that these functions return: [results](results.md).\n")
    write("reference/api/index.md", "\n".join(index))


def summary(text: str) -> str:
    """Return the first paragraph of a docstring as the cell of a table."""
    plain = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", " ".join(text.split()))
    return plain.replace("``", "`").replace("|", "\\|")


# The recipe


def meanings(spec: type[specs.Spec]) -> dict[str, str]:
    """Return what the ``Attributes`` section of a spec's docstring says of each key."""
    sections = griffe.Docstring(inspect.getdoc(spec) or "", parser="numpy", lineno=1).parsed
    notes: dict[str, str] = {}
    for section in sections:
        if section.kind is griffe.DocstringSectionKind.attributes:
            for attribute in section.value:
                for name in attribute.name.split(","):
                    notes[name.strip()] = attribute.description
    return notes


def prose(spec: type[specs.Spec]) -> str:
    """Return a spec's docstring without its ``Attributes`` section."""
    return inspect.cleandoc(inspect.getdoc(spec) or "").split("\n\nAttributes\n")[0].replace("``", "`")


def values_of(schema: Mapping[str, Any]) -> str:
    """Return in words which values a piece of a JSON schema admits."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(values_of(choice) for choice in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("prefixItems")
        if items:
            return "`[" + ", ".join(item.get("type", "number") for item in items) + "]`"
        most = f" at most {schema['maxItems']}" if "maxItems" in schema else ""
        return f"list of{most}: {values_of(schema.get('items', {}))}"
    if kind in ("integer", "number"):
        bounds = [
            ("minimum", "from {}"),
            ("exclusiveMinimum", "above {}"),
            ("maximum", "to {}"),
            ("exclusiveMaximum", "below {}"),
        ]
        ends = [
            words.format(f"{schema[key]:g}" if schema[key] < 1e6 else str(schema[key]))
            for key, words in bounds
            if key in schema
        ]
        return ", ".join([kind, *ends])
    return {"boolean": "`true`, `false`", "null": "`null`", "string": "text"}.get(str(kind), str(kind))


def flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("\n...")
    return text.strip()


def section_rows(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], defaults: Mapping[str, Any], path: str
) -> tuple[list[str], list[tuple[str, Mapping[str, Any], str]]]:
    """Return the rows of a section's table, and the sections within it."""
    spec = getattr(specs, schema["title"], Recipe)
    notes, rows, inner = meanings(spec), [], []
    for key, field in schema["properties"].items():
        name = f"{path}.{key}" if path else key
        reference = next(
            (c["$ref"] for c in (field, *field.get("anyOf", ()), *field.get("allOf", ())) if "$ref" in c),
            None,
        )
        if reference is not None and "properties" in definitions[reference.rpartition("/")[2]]:
            title = reference.rpartition("/")[2]
            inner.append((name, definitions[title], title))
            default = "`null`" if defaults.get(key) is None else "see there"
            rows.append(f"| `{key}` | section | {default} | [`{name}`](#{name.replace('.', '')}) |")
            continue
        if reference is not None:
            field = {**definitions[reference.rpartition("/")[2]], **field}
        note = notes.get(key) or field.get("description", "")
        meaning = " ".join(note.replace("``", "`").replace("|", "\\|").split())
        rows.append(f"| `{key}` | {values_of(field)} | `{flow(defaults.get(key))}` | {meaning} |")
    return rows, inner


def differences(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of nested values differs from others."""
    changed: dict[str, Any] = {}
    for key, value in values.items():
        other = base.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            if below := differences(value, other):
                changed[key] = below
        elif value != other:
            changed[key] = value
    return changed


def sentence(text: str) -> str:
    """Return text as a sentence."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def recipe_page() -> str:
    """Return the page of the recipe's keys and of the presets."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    page = [(DOCS / "reference" / "recipe_head.txt").read_text(encoding="utf-8")]
    todo: list[tuple[str, Mapping[str, Any], str]] = [("", schema, "Recipe")]
    while todo:
        path, section, title = todo.pop(0)
        defaults: Any = Recipe().to_dict()
        for part in path.split(".") if path else ():
            defaults = defaults[part]
        spec = getattr(specs, title, None)
        rows, inner = section_rows(section, definitions, defaults or spec().to_dict(), path)
        todo = inner + todo
        heading = f"### {path} {{ #{path.replace('.', '')} }}" if path else "### Top level"
        page.append(f"{heading}\n\n{prose(spec) if spec else prose(Recipe)}\n")
        page.append("| key | values | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    page.append("## Presets\n")
    page.append("`hrvol recipe show NAME` prints the same. Shown first is what differs from `balanced`.\n")
    base = PRESETS["balanced"].to_dict()
    for name, preset in PRESETS.items():
        page.append(f"### Preset {name}\n\n{sentence(SUMMARIES[name])}\n")
        if changed := differences(preset.to_dict(), base):
            page.append(f"```yaml\n{yaml.safe_dump(changed, sort_keys=False, default_flow_style=None)}```\n")
        whole = preset.to_yaml().rstrip().replace("\n", "\n    ")
        page.append(f'??? note "{name}, whole"\n\n    ```yaml\n    {whole}\n    ```\n')
    return "\n".join(page)


# The workflow file


WORKFLOW = {
    "Top level": SeriesSpec,
    "volumes": VolumeSpec,
    "options": options_spec.ComputeSpec,
    "reading": options_spec.ReadingSpec,
    "reading.raw": options_spec.RawSpec,
    "steps.convert": convert_spec.ConvertSpec,
    "steps.tune": step_specs.TuneSpec,
    "steps.train": step_specs.TrainSpec,
    "steps.train.pairs": step_specs.PairSpec,
    "steps.cluster": step_specs.ClusterSpec,
    "steps.distil": step_specs.DistilSpec,
    "steps.segment": step_specs.SegmentSpec,
    "steps.evaluate": step_specs.EvaluateSpec,
    "steps.export": step_specs.ExportSpec,
}
"""Headings of the page of workflow files, and what they describe."""


def workflow_values(name: str, field: Mapping[str, Any]) -> str:
    """Return in words which values a key of a workflow file admits."""
    places = {
        "VolumeSpec": "volumes",
        "ComputeSpec": "options",
        "PairSpec": "steps.train.pairs",
        "RawSpec": "reading.raw",
    }
    titles = {title.__name__: heading for heading, title in WORKFLOW.items()} | places
    inner = re.findall(r"#/\$defs/(\w+)", json.dumps(field))
    if name == "steps" or not inner:
        return "sections" if inner else values_of(field).replace("object", "mapping")
    heading = titles[inner[0]]
    kind = "list of sections" if field.get("type") == "array" else "section"
    return f"{kind} [`{heading}`](#{heading.replace('.', '')})"


def workflow_page() -> str:
    """Return the page of the keys of workflow files."""
    page = [(DOCS / "reference" / "workflow_head.txt").read_text(encoding="utf-8")]
    for heading, spec in WORKFLOW.items():
        anchor = "" if heading == "Top level" else f" {{ #{heading.replace('.', '')} }}"
        page.append(f"### {heading}{anchor}\n\n{prose(spec)}\n")
        rows = []
        for name, field in spec.model_json_schema()["properties"].items():
            given = spec.model_fields[name]
            default = given.get_default(call_default_factory=True)
            shown = "required" if given.is_required() else f"`{flow(default)}`" if _plain(default) else ""
            meaning = escape(field.get("description", ""))
            rows.append(f"| `{name}` | {workflow_values(name, field)} | {shown} | {meaning} |")
        page.append("| key | values | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(page)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float) or value in ((), {})


# Measurements


def measurement_pages() -> None:
    """Copy the README and the Markdown results of the benchmarks, and their pictures, into the site."""
    for source in sorted(BENCHMARKS.rglob("*")):
        if source.suffix == ".png":
            target = DOCS / "measurements" / source.relative_to(BENCHMARKS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        elif source.suffix == ".md":
            name = str(source.relative_to(BENCHMARKS)).replace("README.md", "index.md")
            write(f"measurements/{name}", source.read_text(encoding="utf-8").replace("](../docs/", "](../"))


def generate() -> None:
    """Write all of them, and delete those of an earlier call."""
    for folder in ("reference/api", "measurements"):
        shutil.rmtree(DOCS / folder, ignore_errors=True)
    write("reference/cli.md", command_page())
    write("reference/recipe.md", recipe_page())
    write("reference/recipe.schema.json", json.dumps(Recipe.model_json_schema(), indent=2) + "\n")
    write("reference/workflow.md", workflow_page())
    write("reference/workflow.schema.json", json.dumps(workflow_schema(), indent=2) + "\n")
    api_pages()
    measurement_pages()


if __name__ == "__main__":
    generate()
