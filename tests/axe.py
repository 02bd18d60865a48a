"""Run axe-core, Deque's accessibility checks, in the page that a browser shows.

The package is downloaded once from the npm registry into .cache and checked by its SHA-256. It is
not part of the suite, as its licence is MPL-2.0. The tests skip if it cannot be downloaded.
"""

import hashlib
import tarfile
import urllib.request
from pathlib import Path

import safefiles

VERSION = "4.14.1"
ADDRESS = f"https://registry.npmjs.org/axe-core/-/axe-core-{VERSION}.tgz"
SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
PATH = Path(__file__).parent.parent / ".cache" / f"axe-core-{VERSION}.tgz"
SCRIPT = """
const [source, done] = arguments;
if (!window.axe) (0, eval)(source);
axe.run(document, {resultTypes: ["violations"]}).then(
  (results) => done(results.violations.map((rule) => [
    rule.id, rule.help, rule.nodes.length, rule.nodes[0].html.slice(0, 200)])),
  (error) => done([["error", String(error), 0, ""]]));
"""


def fetch() -> str:
    """Return the text of axe.min.js; raise OSError if it cannot be downloaded."""
    if not PATH.is_file() or _sha256(PATH.read_bytes()) != SHA256:
        with urllib.request.urlopen(ADDRESS, timeout=30) as answer:
            content = answer.read()
        if _sha256(content) != SHA256:
            raise OSError(f"{ADDRESS} does not have the SHA-256 {SHA256}")
        safefiles.write(PATH, content)
    with tarfile.open(PATH) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode("utf-8")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def violations(window, source: str) -> list[str]:
    """Return the violations in the page that a browser shows, one line per rule."""
    rules = window.javascript_later(SCRIPT, source)
    return [f"{rule} x{count}: {text}: {first}" for rule, text, count, first in rules]
