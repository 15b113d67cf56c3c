"""What the site takes from elsewhere in the repository, so that nothing is written twice: a hook of MkDocs.

- Files of the repository become pages and files of the site under their own paths (`TAKEN`), Python files as text (`CODE`).
- A line that is nothing but `<!-- include -->[title](path.md#section)` becomes that section, its heading and what stands below
  up to the next heading. GitHub shows it as a link.
- Links are written as GitHub takes them; here they lead to where the file, or the section that was included, is in the site.
- In the navigation a pattern stands for the pages that are named nowhere else.
- Formulas become MathML, which browsers draw without a script.
"""

import os
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path, PurePosixPath
from typing import Any

import jupytext
from latex2mathml.converter import convert
from markdown.extensions.toc import slugify
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent.parent
ABOUT = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE")
TAKEN = (*ABOUT, "benchmarks/README.md", "benchmarks/results/*", "rmdp_jax/dossier/schema.json")
CODE = ("examples/*.py", "notebooks/*.py")
# What has no page of its own, and the page that stands for it
ELSEWHERE = {"README.md": "index.md", "docs/README.md": "index.md", "benchmarks/results": "results.md"}

INCLUDE = re.compile(r"^<!-- include -->\[[^\]]*\]\(([^)#]+)#([^)]+)\)$", re.M)
LINK = re.compile(r"(\]\()([^)#\s:]*)(#[^)\s]*)?(?=\))")
CODE_SPAN = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`)", re.M | re.S)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)

_in_site: dict[str, str] = {}  # path in the repository -> path in the site
_included: dict[str, str] = {}  # path#section in the repository -> path in the site of the page that includes it


def on_files(files: Files, config: Any) -> Files:
    """Add what is taken from the repository, and learn where everything is."""
    _in_site.clear()
    _included.clear()
    _in_site.update({f"docs/{file.src_uri}": file.src_uri for file in files})
    for source in _matches(TAKEN):
        files.append(File.generated(config, source, abs_src_path=str(ROOT / source)))
        _in_site[source] = source
    for source in _matches(CODE):
        _in_site[source] = source.removesuffix(".py") + ".md"
        files.append(File.generated(config, _in_site[source], content=_page_of_code(ROOT / source)))
    pages = [file.src_uri for file in files.documentation_pages()]
    for source, page in list(_in_site.items()):
        if page in pages:
            text = files.get_file_from_path(page).content_string
            _included.update({f"{_resolve(path, source)}#{section}": page for path, section in INCLUDE.findall(text)})
    _in_site.update(ELSEWHERE)
    config.nav = _expand(config.nav, pages)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Include sections, and lead all links to where things are in the site."""
    here = page.file.src_uri
    source = next(source for source, place in _in_site.items() if place == here)
    if here.startswith("benchmarks/results/"):  # wide tables, one section
        page.meta.setdefault("hide", ["toc"])
    first, *rest = INCLUDE.split(markdown)
    text = [_relink(first, source, here)]
    for path, section, own in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        path = _resolve(path, source)
        text += [_relink(_section(path, section), path, here), _relink(own, source, here)]
    return "".join(text)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Formulas as MathML."""
    return FORMULA.sub(lambda match: convert(unescape(match[2]), display=_DISPLAY[match[1]]), html)


_DISPLAY = {"span": "inline", "div": "block"}


def _matches(patterns: tuple[str, ...]) -> Iterator[str]:
    """Paths in the repository."""
    for pattern in patterns:
        yield from sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))


def _resolve(link: str, source: str) -> str:
    """Path in the repository of a link in the file `source`."""
    return os.path.normpath(os.path.join(os.path.dirname(source), link)) if link else source


def _relink(markdown: str, source: str, here: str) -> str:
    """`markdown` of the file `source` with links that work on the page `here`; one that leads nowhere stays and is reported."""

    def lead(match: re.Match[str]) -> str:
        opening, link, anchor = match[1], match[2], match[3] or ""
        path = _resolve(link, source)
        place = _included.get(path + anchor) or _in_site.get(path)
        known = place is not None and link + anchor
        return f"{opening}{os.path.relpath(place, os.path.dirname(here) or '.')}{anchor}" if known else match[0]

    parts = CODE_SPAN.split(markdown)  # every other one is code
    return "".join(part if number % 2 else LINK.sub(lead, part) for number, part in enumerate(parts))


def _section(path: str, name: str) -> str:
    """A section of a Markdown file without the sections within it; its heading is the first or second of a page."""
    lines, fenced = [], False
    for line in (ROOT / path).read_text().splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#+) (.+)", line)
        if heading and lines:
            break
        if heading and slugify(heading[2], "-") == name:
            lines.append(f"{'#' * min(len(heading[1]), 2)} {heading[2]}")
        elif lines:
            lines.append(line)
    if not lines:
        raise PluginError(f"{path} has no section #{name} that could be included")
    return "\n".join(lines).rstrip()


def _page_of_code(path: Path) -> str:
    """A Python file as a page; a notebook as its cells."""
    text = path.read_text()
    if path.parent.name != "notebooks":
        return f"# {path.name}\n\n```python\n{text}```\n"
    cells = jupytext.reads(text, fmt="py:percent").cells
    return "\n\n".join(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```" for cell in cells)


def _expand(nav: Any, pages: list[str]) -> Any:
    """The navigation with each pattern replaced by the pages that it matches and that no other entry names."""

    def leaves(entry: Any) -> Iterator[str]:
        for inner in entry if isinstance(entry, list) else entry.values():
            yield from [inner] if isinstance(inner, str) else leaves(inner)

    named = set(leaves(nav))

    def expand(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {title: expand(inner) if isinstance(inner, list) else inner for title, inner in entry.items()}
        return [expanded for inner in entry for expanded in (of(inner) if isinstance(inner, str) else [expand(inner)])]

    def of(pattern: str) -> list[str]:
        depth = pattern.count("/")
        found = [page for page in pages if PurePosixPath(page).match(pattern) and page.count("/") == depth]
        return [page for page in sorted(found) if page not in named] if "*" in pattern else [pattern]

    return expand(nav)
