"""README and documentation: length, links, commands, names of benchmarks, and style."""

import re
import shlex
import tokenize
from pathlib import Path

import click
import pytest

from hrvol.cli import main

ROOT = Path(__file__).parents[1]
MOST_WORDS = 900
GENERATED = ("docs/measurements/", "docs/reference/")
"""Written by docs/generate.py; the builder of the site checks links to them."""

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    *(
        path
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if not str(path.relative_to(ROOT)).startswith(("docs/measurements/", "docs/reference/api/"))
        and path.name not in ("cli.md", "recipe.md", "workflow.md")
    ),
]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
BANNED = (
    r"gone on with|go on with|goes on\b|going on with|that nothing happened to|(?-i:\bis none\b)|to be had"
    r"|\bof hrvol's\b|what is left of it|\bmood\b|make way|a look at|\banew\b|\bwhoever\b|\bsomebody\b"
    r"|\basked\b|\btold\b|\bsaid\b|\bsays\b"
)


def text_of(path):
    """Return a file with its lines joined, so that a phrase may cross a line."""
    return " ".join(path.read_text(encoding="utf-8").split())


def commands_of(path):
    """Yield the lines of code blocks and the inline code that call hrvol, continued lines joined."""
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|", line):
                if re.match(r"\s*(watch -n \d+ )?hrvol ", part):
                    yield part
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(code.split()) for code in re.findall(r"`(hrvol [a-z][^`]*)`", prose))


def check(line):
    """Raise unless a command line names commands and options that there are."""
    words = shlex.split(re.sub(r"\s>\s.*", "", line), comments=True)
    words = words[words.index("hrvol") + 1 :]
    command, path = main, "hrvol"
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands and re.fullmatch(r"[A-Z]+", name):
            return  # a placeholder, as in "hrvol COMMAND --help"
        assert name in command.commands, f"{line}: {path} has no command {name}"
        command, path = command.commands[name], f"{path} {name}"
    context = click.Context(command, info_name=path)
    command.make_parser(context).parse_args([word for word in words if word not in ("...", "OUT")])


def test_the_readme_is_short():
    words = len((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert words <= MOST_WORDS


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_linked_files_exist(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://", "#")):
            continue
        target = (path.parent / link.partition("#")[0]).resolve()
        name = str(target.relative_to(ROOT))
        assert target.exists() or name.startswith(GENERATED), f"{path}: {link}"


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_named_files_and_benchmarks_exist(path):
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:benchmarks|workflows|examples|tests|docs|hrvol)/[\w./-]+)`", text):
        assert (ROOT / name).exists() or name.startswith(GENERATED), f"{path}: {name}"
    for module in re.findall(r"python -m\s+(benchmarks[\w.]*\w)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), f"{path}: {module}"


def test_the_navigation_names_every_page():
    listed = set(re.findall(r"[\w-]+(?:/[\w-]+)*\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    written = {name.removeprefix("docs/") for name in NAMES if name.startswith("docs/")}
    assert written <= listed
    assert all((ROOT / "docs" / n).exists() or f"docs/{n}".startswith(GENERATED) for n in listed)


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_commands_parse(path):
    for line in commands_of(path):
        try:
            check(line)
        except click.UsageError as error:
            pytest.fail(f"{line}: {error.format_message()}")


def test_a_wrong_command_does_not_parse():
    with pytest.raises(click.UsageError):
        check("hrvol train a.tif b.tif -o m.hrvol --recipie fast")
    with pytest.raises(AssertionError):
        check("hrvol trian a.tif b.tif")


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_pages_are_in_plain_english(path):
    found = re.findall(BANNED, text_of(path), re.IGNORECASE)
    assert not found


CODE = sorted((ROOT / "hrvol").rglob("*.py"))


@pytest.mark.parametrize("path", CODE, ids=[str(path.relative_to(ROOT)) for path in CODE])
def test_code_is_in_plain_english(path):
    """Docstrings, messages and comments; names of variables are not looked at."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    with path.open("rb") as file:
        texts = [token.string for token in tokenize.tokenize(file.readline) if token.type in kinds]
    found = re.findall(BANNED, " ".join(" ".join(texts).split()), re.IGNORECASE)
    assert not found
