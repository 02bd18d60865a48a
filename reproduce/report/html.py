"""Figures and Markdown as HTML that is safe inside the page and loads nothing."""

import base64
import html
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from markdown_it import MarkdownIt

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
INTERVAL = re.compile(r" \[(-?[\d.]+), (-?[\d.]+)\]")  # stays on one line
PICTURE = re.compile(r"^!\[[^\]\n]*\]\([^)\n]*\)$", re.MULTILINE)  # on a line of its own

# What Matplotlib draws with, and a little more; anything else is left out.
WANTED = (
    *("g", "defs", "path", "use", "text", "tspan", "rect", "circle", "ellipse", "line"),
    *("polyline", "polygon", "clipPath", "image", "linearGradient", "stop", "pattern", "title"),
)

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def svg(content: bytes, prefix: str, label: str) -> str:
    """A figure that scales, its ids made unique by `prefix`; ValueError where it is no SVG."""
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError) as error:  # the latter: an unknown encoding
        raise ValueError(f"no whole SVG: {error}") from error
    if root.tag != f"{{{SVG}}}svg":
        raise ValueError("not an SVG")
    for parent in root.iter():
        for child in [*parent]:
            if child.tag not in [f"{{{SVG}}}{name}" for name in WANTED]:
                parent.remove(child)
    for element in root.iter():
        for name, value in [*element.attrib.items()]:
            kept = _attribute(name, value, prefix)
            if kept is None:
                del element.attrib[name]
            else:
                element.set(name, kept)
    width = root.attrib.pop("width", "")
    root.attrib.pop("height", None)
    root.set("style", f"width: {width}" if re.fullmatch(r"[\d.]+(pt|px)?", width) else "")
    root.set("role", "img")
    root.set("aria-label", label)
    return ElementTree.tostring(root, encoding="unicode")


def png(content: bytes, label: str) -> str:
    """A picture inside the page; ValueError where it is no PNG."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("not a PNG")
    data = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(label)}" src="data:image/png;base64,{data}">'


def _attribute(name: str, value: str, prefix: str) -> str | None:
    """The value as it may stay: no scripts, no addresses, ids renamed, points to a hundredth."""
    if name == "id":
        return prefix + value
    if name in ("href", f"{{{XLINK}}}href"):
        if value.startswith("#"):
            return f"#{prefix}{value[1:]}"
        return value if re.match(r"data:image/(png|jpeg);base64,", value) else None
    if name.startswith("on"):
        return None
    if name == "d":
        return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(value.split()))
    if "url(" in value:
        value = re.sub(r"url\(\s*['\"]?#", f"url(#{prefix}", value)
        return None if re.search(r"url\((?!#)", value) else value.replace("')", ")")
    return value


def markdown(text: str, folder: Path, page: Path, below: int = 2) -> str:
    """A document of `folder` as HTML for `page`: raw HTML escaped, no pictures.

    Its title was a heading of level 1; the others come below one of level `below` of the page.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = parser.parse(PICTURE.sub("", COMMENT.sub("", text)))
    for token in tokens:
        if token.type.startswith("heading"):
            token.tag = f"h{min(6, int(token.tag[1]) + below - 1)}"
        for inner in token.children or []:
            if inner.type == "link_open":
                inner.attrSet("href", _target(str(inner.attrGet("href")), folder, page))
    made = parser.renderer.render(tokens, parser.options, {})
    scrolls = '<div class="scroll" role="group" tabindex="0" aria-label="Table">'
    made = made.replace("<table>", f'{scrolls}<table class="plain">')
    made = made.replace("</table>", "</table></div>").replace("<pre>", '<pre tabindex="0">')
    made = INTERVAL.sub("\u00a0[\\1,\u00a0\\2]", made)
    return made.replace("<th></th>", "<td></td>")  # the corner of a table heads nothing


def _target(href: str, folder: Path, page: Path) -> str:
    """A link of a document as seen from the page."""
    parts = urlsplit(href)
    if parts.scheme or not parts.path:
        return href
    return link(folder / unquote(parts.path), page) + ("#" + parts.fragment) * bool(parts.fragment)


def link(path: Path, page: Path) -> str:
    """The address of a file relative to the page."""
    return quote(os.fsencode(Path(os.path.relpath(path, page.parent)).as_posix()))
