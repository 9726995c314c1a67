# SPDX-License-Identifier: Apache-2.0
"""What the pages say holds: links, commands, test names, fields."""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import pytest
from repository import ROOT
from servers import MakeEngine

from reflex_core.files.share import embedded_policy
from reflex_core.settings.table import TABLE
from reflex_ros import launch_args
from reflex_ros.cli.main import main as reflex
from reflex_ros.cli.serve import main as serve_main
from reflex_ros.cli.verbs import VERBS
from reflex_ros.sidecar.server import Sidecar

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
BESIDE = [
    path
    for folder in ("models", "training", "test", "reflex_client", "reflex_ros")
    for path in (ROOT / folder).rglob("README.md")
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [*PAGES, *BESIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^):]+))?\)", page.read_text(encoding="utf-8")):
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


def test_every_page_is_of_one_kind_and_in_the_index() -> None:
    kinds = {path.name for path in DOCS.iterdir()}
    assert kinds == {"index.md", "tutorials", "how-to", "reference", "explanation", "pictures"}
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = [str(page.relative_to(DOCS)) for page in PAGES if page.parent.parent == DOCS]
    assert len(pages) > 50
    assert [page for page in pages if f"({page})" not in index] == []


FOLDERS = ("benchmarks", "config", "dashboards", "deploy", "docs", "launch", "models", "reflex_client", "reflex_core", "reflex_export",
           "reflex_ros", "test", "training")  # fmt: skip
TEXTS = {".py", ".yaml", ".yml", ".json", ".md", ".toml", ".xml", ".txt", ".rst", ".js", ".html", ""}
OTHERS = {"docs/spec.md"}  # of git-lfs


def test_pages_that_files_of_the_repository_name_exist() -> None:
    """In help texts, error sentences, comments and configuration."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    files += [path for path in ROOT.iterdir() if path.name != "CHANGELOG.rst"]
    missing = {}
    for file in files:
        if file.is_file() and file.suffix in TEXTS:
            text = file.read_text(encoding="utf-8", errors="replace")
            named = set(re.findall(r"(?<![\w/-])docs/[\w./-]+\.(?:md|png|gif|webp)\b", text)) - OTHERS
            missing |= {page: file for page in named if not (ROOT / page).exists()}
    assert missing == {}


INTERFACES = ("msg", "srv", "action")  # `reflex_ros/ActionChunk` is a type


def test_code_that_pages_name_exists() -> None:
    """Files and folders (`reflex_core/values.py`) and what is imported (`reflex_core.doctor.parity.record`)."""
    missing = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"(?<![\w/.])(?:reflex_(?:core|export|ros)|test)/[\w/.]*\w", text):
            is_type = any((ROOT / kind / f"{Path(name).name}.{kind}").exists() for kind in INTERFACES)
            missing += [] if (ROOT / name).exists() or is_type else [f"{page.name}: {name}"]
        for name in re.findall(r"`(reflex_(?:core|export|ros)(?:\.\w+)+)[`(]", text):
            missing += [] if found(name) else [f"{page.name}: {name}"]
    assert missing == []


def test_contributing_answers_where_to_add_something_with_a_file_that_exists() -> None:
    rows = re.findall(r"^\| an? ([^|]+) \| ([^|]+) \|([^|]*)\|$", CONTRIBUTING, re.MULTILINE)
    answers = {
        task: re.findall(r"`([\w./-]+/[\w./-]*|[\w.]+\.\w+)`", f"{first}{more}") for task, first, more in rows
    }
    assert len(answers) > 12
    assert [task for task, files in answers.items() if not files] == []
    assert [name for files in answers.values() for name in files if not (ROOT / name).exists()] == []


def test_the_architecture_page_lists_every_package() -> None:
    page = (DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8")
    packages = [
        f"`{init.parent.relative_to(ROOT)}/`"
        for package in ("reflex_client", "reflex_core", "reflex_export", "reflex_ros")
        for init in (ROOT / package).glob("*/__init__.py")
        if init.parent != ROOT / package
        and any(path.name != "__init__.py" for path in init.parent.glob("*.py"))
    ]
    assert [name for name in packages if name not in page] == []


def found(name: str) -> bool:
    """True where a dotted name leads to something: modules as far as they go, then attributes."""
    with suppress(ImportError, AttributeError):
        return pkgutil.resolve_name(name) is not None
    return False


LENGTH = 120  # lines of a page that a reader stays for
# grow by a row for each behaviour, module, setting
TABLES = {"behaviour.md", "index.md", "renamed-modules.md", "settings.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_short(page: Path) -> None:
    assert page.name in TABLES or len(page.read_text(encoding="utf-8").splitlines()) <= LENGTH


def anchors(page: Path) -> list[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_the_readme_begins_with_what_a_visitor_wants_to_know() -> None:
    beginning = README.splitlines()[:10]
    assert "for robot developers" in beginning[2]
    for number, subject in enumerate(("Policies", "Robots", "Machines", "Latency"), start=3):
        assert beginning[number].startswith(f"- **{subject}**: ")
    assert re.search(r" ms .*`python -m benchmarks\.\w+`", beginning[6]), "a number names its script"
    [picture] = re.findall(r"!\[.*\]\((.*)\)", beginning[8])
    readable, film = cv2.imreadanimation(str(ROOT / picture))
    assert readable
    assert len(film.frames) > 20
    assert (ROOT / picture).stat().st_size < 2_000_000


# words of this project that a stranger cannot search for; the field's word stands in the test's message
DIALECT = {
    "onion": "middleware chain", "rooms?": "module, package", "doors?": "interface, API", "nobody": "no client, no subscriber",
    "somebody": "a client, a person", "stands? in for": "is a fallback for", "stand-ins?": "fallback", "spool": "batch queue",
    "whole numbers?": "integer", "mended": "repaired", "ready table": "startup banner", "said": "reported", "told": "commanded",
    "seal(?:ed|s)?": "manifest",
    "well-known": "model family", "pictures?": "image", "baked": "fused", "kept prefix(?:es)?": "cached prefix", "torn": "incomplete",
}  # fmt: skip
ALLOWED = (
    '"said"',
    "reflex export seal",
    "~somebody",
    "told apart",
    "`torn`",
    "`pictures`",
    "docs/pictures",
    "pictures_mended",
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_speaks_the_terms_of_the_field(page: Path) -> None:
    text = re.sub(
        r"\]\([^)]*\)|^```.*?^```$|src=\S+|^\| reflex_[\w.]+ \|",  # old names stand in the left column of a table
        "",
        page.read_text(encoding="utf-8"),
        flags=re.DOTALL | re.MULTILINE,
    )
    assert spoken(re.sub(r"`test_\w+`|`python -m [^`]*`|`--picture[^`]*`", "", text)) == {}


@pytest.mark.parametrize(
    "words",
    [
        *([command] for command in VERBS),
        *(["guard", "init"], ["guard", "check"], ["audit", "verify"], ["audit", "head"]),
        *(["ab", "report"], ["bag", "reindex"], ["trace", "export"]),
        *(["trace", verb] for verb in ("ls", "show", "view", "report")),
    ],
    ids=" ".join,
)
def test_help_speaks_the_terms_of_the_field(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):  # most commands end with it, replay returns
        reflex([*words, "--help"])
    shown = capsys.readouterr().out
    assert "--help" in shown
    assert spoken(shown.replace("--picture", "")) == {}


def spoken(text: str) -> dict[str, str]:
    """The words of the dialect in a text, each with the term of the field."""
    for allowed in ALLOWED:
        text = text.replace(allowed, "")
    return {word: term for word, term in DIALECT.items() if re.search(rf"\b{word}\b", text, re.IGNORECASE)}


def test_make_verbs_in_the_readme_exist() -> None:
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for verb in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^  {verb}\b", helped, re.MULTILINE), verb


def test_launch_arguments_in_the_readme_are_settings() -> None:
    names = {row.name for row in TABLE} | {name for name, _, _ in launch_args.OWN_ARGUMENTS}
    for name in re.findall(r"(?<!/)\b(\w+):=(?!\s)", re.sub(r'"[^"]*"', "", README)):
        assert name in names


def test_the_readme_serve_command_is_understood(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "reflex serve /path/to/export --embodiment franka --no-ros" in README
    assert serve_main([str(tmp_path / "export"), "--embodiment", "franka", "--no-ros", "--port", "0"]) == 78
    assert "no such export directory" in capsys.readouterr().err


def test_every_test_that_the_behaviour_page_names_exists() -> None:
    named = set(
        re.findall(r"`(test_\w+)`", (DOCS / "reference" / "behaviour.md").read_text(encoding="utf-8"))
    )
    there = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "test").rglob("test_*.py"))
    assert named
    assert [name for name in sorted(named) if f"def {name}(" not in there] == []


@pytest.fixture
def sidecar(make_engine: MakeEngine):  # type: ignore[no-untyped-def]
    engine = make_engine("mono_pi0_7", export_dir=str(embedded_policy()), port=0)
    found = Sidecar(engine, engine.settings)
    found.start()
    yield found
    found.stop()


def test_the_readme_request_gets_a_chunk_and_the_page_lists_the_reply_fields(sidecar: Sidecar) -> None:
    from urllib.request import Request, urlopen

    script = re.search(r"<<'PY'.*?\n(.*?)\nPY", README, re.DOTALL)
    assert script is not None
    body = subprocess.run([sys.executable, "-c", script[1]], capture_output=True, check=True).stdout
    with urlopen(Request(f"{sidecar.url}/act", data=body), timeout=30) as answer:
        reply = json.load(answer)
    assert len(reply["actions"]) == 50
    page = (DOCS / "reference" / "http.md").read_text(encoding="utf-8")
    listed = page[page.index("The reply always holds") : page.index("Errors are")]
    fields = {name for name in re.findall(r"`(\w+)`", listed) if name != "seed"} | {"seed"}
    assert fields - set(reply) == set(), "promised but absent"
    assert set(reply) - fields == set(), "present but not on the page"


def test_curl_paths_in_the_readme_answer(sidecar: Sidecar) -> None:
    from urllib.request import urlopen

    for path in re.findall(r"curl -s localhost:8000(/\w+)", README):
        with urlopen(sidecar.url + path, timeout=30) as answer:
            assert answer.status == 200
