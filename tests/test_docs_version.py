"""The version is written in reproduce/__init__.py; CITATION.cff and the changelog agree with it."""

import re

import yaml

import reproduce
from tests.conftest import REPOSITORY


def test_the_citation_names_the_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert str(citation["version"]) == reproduce.__version__


def test_the_changelog_covers_the_version():
    changes = (REPOSITORY / "CHANGELOG.md").read_text()
    unreleased = re.search(r"The next version is ([\d.]*\d)\.", changes)
    released = re.findall(r"^## \[([\d.]+)\]", changes, re.MULTILINE)
    assert reproduce.__version__ in [unreleased and unreleased[1], *released]
