"""Turn figures and Markdown into HTML that is safe inside the page and loads nothing."""

import base64
import html
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from markdown_it import MarkdownIt

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SVG_ROOT = "{http://www.w3.org/2000/svg}svg"
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
INTERVAL = re.compile(r" \[(-?[\d.]+), (-?[\d.]+)\]")
PICTURE = re.compile(r"^!\[[^\]\n]*\]\([^)\n]*\)$", re.MULTILINE)  # on a line of its own


def figure(content: bytes, suffix: str, label: str) -> str:
    """Return an `.svg` or `.png` as an <img> with its content inside; raise ValueError if damaged.

    An SVG in an <img> cannot run scripts, load anything or see the page.
    """
    if suffix == ".png":
        if not content.startswith(PNG_SIGNATURE):
            raise ValueError("it is not a PNG")
        kind = "png"
    else:
        _check_svg(content)
        kind = "svg+xml"
    data = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(label)}" src="data:image/{kind};base64,{data}">'


def _check_svg(content: bytes) -> None:
    """Raise ValueError if the content is not a complete SVG."""
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an unknown encoding
        raise ValueError(f"it is not a complete SVG: {error}") from error
    if root.tag != SVG_ROOT:
        raise ValueError("it is not an SVG")


def markdown(text: str, folder: Path, page: Path, below: int = 2) -> str:
    """Return a document of `folder` as HTML for `page`, with raw HTML escaped and no pictures.

    The document's title was a heading of level 1. Its other headings are placed below a heading of
    level `below` of the page.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = parser.parse(PICTURE.sub("", COMMENT.sub("", text)))
    for token in tokens:
        if token.type.startswith("heading"):
            token.tag = f"h{min(6, int(token.tag[1]) + below - 1)}"
        for inner in token.children or []:
            if inner.type == "link_open":
                inner.attrSet("href", _target(str(inner.attrGet("href")), folder, page))
    rendered = parser.renderer.render(tokens, parser.options, {})
    scroller = '<div class="scroll" role="group" tabindex="0" aria-label="Table">'
    rendered = rendered.replace("<table>", f'{scroller}<table class="plain">')
    rendered = rendered.replace("</table>", "</table></div>")
    rendered = rendered.replace("<pre>", '<pre tabindex="0">')
    rendered = rendered.replace("<th></th>", "<td></td>")  # an empty corner is not a heading
    return INTERVAL.sub("\u00a0[\\1,\u00a0\\2]", rendered)  # keep an interval on one line


def _target(href: str, folder: Path, page: Path) -> str:
    """Return a document's link relative to the page."""
    parts = urlsplit(href)
    if parts.scheme or not parts.path:
        return href
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return link(folder / unquote(parts.path), page) + fragment


def link(path: Path, page: Path) -> str:
    """Return the address of a file relative to the page."""
    return quote(os.fsencode(Path(os.path.relpath(path, page.parent)).as_posix()))
