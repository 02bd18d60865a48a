"""Every link of the documentation has a target, and every command on its pages exists."""

import contextlib
import importlib.util
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        ROOT / "results" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "tests" / "golden").glob("*.md"),
    ]
)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)|<img[^>]+src=\"(?!https?:)([^\"]+)\"")
COMMAND = re.compile(r"(?:\"\$PYTHON\"|\bpython) -m ([a-z]\S*)(.*)|\bbash (\S+\.sh)(.*)")
FOREIGN_MODULES = ("pip", "pytest", "ruff", "venv")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def slugs(path: Path) -> set[str]:
    """Return the anchors that GitHub derives from headings, and those set by hand."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    counts: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?) *#*$", text, re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = counts[slug] = counts.get(slug, -1) + 1
        if count:
            counts[f"{slug}-{count}"] = 0
    return counts.keys() | set(re.findall(r"(?:id|name)=\"([^\"]+)\"", text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document):
    broken = []
    for link in (one or other for one, other in LINK.findall(document.read_text())):
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        if not target.exists() or (anchor and anchor not in slugs(target)):
            broken.append(link)
    assert not broken


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Return (module or script, its arguments) of every command of the suite in a text.

    Comments and commands with placeholders are left out.
    """
    typed = []
    text = text.replace("\\\n", " ").replace('"$PYTHON" -m\n', '"$PYTHON" -m ')
    for module, words, script, more in COMMAND.findall(text):
        what = (module or script).rstrip("`.,;:)")
        if what.split(".")[0] in FOREIGN_MODULES or "NAME" in what:
            continue
        line = (
            "" if what != (module or script) else re.split(r"[`#;]| \| |&&| → ", words or more)[0]
        )
        line = re.sub(r"[\[\]]", " ", line)  # optional parts
        try:
            typed.append((what, shlex.split(line)))
        except ValueError:  # an apostrophe in running text
            typed.append((what, line.split()))
    return typed


@cache
def help_of(module: str, *subcommand: str) -> str:
    """Return what --help prints, in this process: a new one would import everything again."""
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [module, *subcommand, "--help"]),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(action="ignore"),  # runpy warns that the module is imported already
        pytest.raises(SystemExit),
    ):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return printed.getvalue()


@cache
def help_of_script(script: str) -> str:
    environment = os.environ | {"CXR_PYTHON": sys.executable}  # do not create an environment
    command = ["bash", ROOT / script, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def unknown_flags(what: str, words: list[str]) -> list[str]:
    flags = [word.partition("=")[0].rstrip(",.)") for word in words if word.startswith("--")]
    if not flags:
        return []
    if what.endswith(".sh"):
        script = Path(what).stem
        known = help_of_script(what) if script == "all" else help_of(f"reproduce.{script}")
    else:
        known = help_of(what)
        if words and not words[0].startswith("-"):
            known += help_of(what, words[0])
    return [flag for flag in flags if not re.search(rf"{re.escape(flag)}(?![\w-])", known)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_can_be_typed(document):
    wrong = []
    for what, words in commands(document.read_text()):
        if what.endswith(".sh"):
            exists = (ROOT / what).is_file()
        else:
            exists = importlib.util.find_spec(what) is not None
        if not exists:
            wrong.append(what)
        elif what != "tests/run.sh":  # its arguments belong to pytest
            wrong += [f"{what} {flag}" for flag in unknown_flags(what, words)]
    assert not wrong


def test_what_counts_as_a_command():
    text = "Run `python -m data.phantom sheet --out x.png`, or\n"
    text += "    bash reproduce/all.sh [--plco D]   # all of them --really\n"
    assert commands(text) == [
        ("data.phantom", ["sheet", "--out", "x.png"]),
        ("reproduce/all.sh", ["--plco", "D"]),
    ]
    assert commands('"$PYTHON" -m pip install x; `python -m bench.NAME --quick`') == []
    assert unknown_flags("data.phantom", ["sheet", "--out", "x", "--outer", "y"]) == ["--outer"]
