"""mkdocs hooks of this site: the page of commands, and links to files outside the site.

The page of commands is generated from the command line's parser at every build, so it is always
up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from codedance.pipelines.charts.markdown_table import markdown_table
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PACKAGES = ("sandbox", "envs", "policies", "pipelines")
OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")
HEAD = """# Commands

Every command ends with an example in its `--help`. TAB completes commands, options, presets,
suites, run ids, backends and policies after `codedance --install-completion`.

With `--json`, standard output contains exactly one JSON document; messages and progress go to
standard error. Unknown numbers are `null`.
"""


class Parameter(Protocol):
    """The attributes of an option or argument that the page uses."""

    name: str
    opts: list[str]
    help: str | None


class Command(Protocol):
    """The attributes of a command or group that the page uses."""

    params: list[Parameter]
    help: str | None
    epilog: str | None


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages that the navigation omits."""
    _add_unlisted_pages(config)
    return config


def _link_packages() -> None:
    """Link the packages in the layout of their imports, for the pages made from docstrings."""
    package = ROOT / "build" / "docs-source" / "codedance"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()  # else another folder of this name would be searched
    for name in PACKAGES:
        link = package / name
        if not link.is_symlink():
            link.symlink_to(ROOT / name)


_link_packages()  # at import: the mkdocstrings plugin looks for its folders before on_config


def _add_unlisted_pages(config: MkDocsConfig) -> None:
    """Append pages that mkdocs.yml does not name to the navigation, under their titles."""
    named = set(_named(config.nav))
    folder = Path(config.docs_dir)
    rest = [path for path in sorted(folder.glob("*.md")) if path.name not in named]
    if rest:
        titles = [path.read_text(encoding="utf-8").partition("\n")[0] for path in rest]
        pages = zip(titles, rest, strict=True)
        config.nav.append({"More": [{title.strip("# "): path.name} for title, path in pages]})


def _named(entry: object) -> Iterator[str]:
    """Yield every page that a navigation names."""
    if isinstance(entry, str):
        yield entry
    parts = entry.values() if isinstance(entry, dict) else entry
    for part in parts if isinstance(entry, dict | list) else ():
        yield from _named(part)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of commands."""
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links to files outside the site by their text."""
    return OUTSIDE.sub(_unlinked, markdown) if "/" not in page.file.src_uri else markdown


def commands_page() -> str:
    """Return the page with the purpose, options and examples of every command."""
    import typer
    from codedance.pipelines.cli.app import app
    from codedance.pipelines.cli.exit_codes import MEANINGS

    table = markdown_table(("exit code", "meaning"), MEANINGS.items())
    return "\n".join([HEAD, *table, "", *_sections(typer.main.get_command(app), ("codedance",))])


def _sections(command: Command, path: tuple[str, ...]) -> list[str]:
    if hasattr(command, "commands"):
        return [
            line
            for name, member in sorted(command.commands.items())
            for line in _sections(member, (*path, name))
        ]
    examples = [line.strip() for line in (command.epilog or "").split("\n\n")[1:]]
    lines = [f"## {' '.join(path)}", "", command.help or "", ""]
    if examples:
        lines += ["```console", *(f"$ {line}" for line in examples), "```", ""]
    return [*lines, *markdown_table(("option", "meaning"), map(_row, _shown(command))), ""]


def _shown(command: Command) -> list[Parameter]:
    return [p for p in command.params if not getattr(p, "hidden", False)]


def _row(parameter: Parameter) -> tuple[str, str]:
    is_option = any(name.startswith("-") for name in parameter.opts)
    names = ", ".join(f"`{name}`" for name in parameter.opts) if is_option else parameter.name
    return names, (parameter.help or "").replace("|", " or ")


def _unlinked(found: re.Match[str]) -> str:
    return found.group(1)
