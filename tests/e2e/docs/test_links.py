"""Links of the documents lead somewhere."""

import re
from pathlib import Path

import pytest
from run_examples import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "tests").glob("**/README.md")])
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def text_of(file: Path) -> str:
    """The document without code, where brackets mean other things."""
    text = re.sub(r"(?ms)^ *(```|~~~).*?^ *\1", "", file.read_text())
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(file: Path) -> set[str]:
    """Names of the headings, as code forges make them."""
    titles = re.findall(r"(?m)^#+ +(.*)$", re.sub(r"(?ms)^```.*?^```", "", file.read_text()))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file):
    for link in LINK.finditer(text_of(file)):
        target, _, anchor = link["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (file.parent / target).resolve() if target else file
        assert path.exists(), f"{file.name}: {link['target']}"
        if anchor:
            assert anchor in anchors(path), f"{file.name}: {link['target']}"


def test_every_page_is_reached_from_the_front():
    reached, left = set(), [ROOT / "README.md", ROOT / "docs/README.md"]
    while left:
        file = left.pop()
        if file in reached or file.suffix != ".md" or not file.exists():
            continue
        reached.add(file)
        for link in LINK.finditer(text_of(file)):
            target = link["target"].partition("#")[0]
            if target and not re.match(r"[a-z]+:", target):
                left.append((file.parent / target).resolve())
    missing = sorted({page.resolve() for page in (ROOT / "docs").glob("**/*.md")} - reached)
    assert missing == []
