"""The site that real runs leave, in a real browser that is cut off from every network, by every eye it must suit."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

if TYPE_CHECKING:
    from conftest import Workplace

ROOT = Path(__file__).resolve().parent.parent
STAGES = ["data", "training", "evaluation", "model-card"]
FOUR = ["index", *STAGES]
PAGES = [*FOUR, "comparison"]
HOSTILE = (
    "{{< env HOME >}} {{< include ../../../.env >}} ::: <script>pwned=1</script> $x$ | `c` *b* @fig-inputs 🎉 \"q' &lt;"
)
LABELS = ["'<i>no|", "yes {{< env PATH >}}"]
PARAMS = """\
workflow: hostile
title: 'A "title": <b>bold</b> {{< env HOME >}} 🎉'
source: hostile.csv
text: text
label: label
cv: 2
draws: 50
gate_min_n: 20
caveats: 'Beware of {{< env HOME >}} and <script>pwned=1</script>: it is *text*.'
"""


@pytest.fixture(scope="module")
def site(trained_once: Workplace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of two runs of a real workflow, the second with another model, and their comparison."""
    place = trained_once.copy(tmp_path_factory.mktemp("site") / "project")
    place.pinmill("run", "tiny", "--set", "model={logisticregression__C: 1}")
    first, second = (model["version"] for model in place.json("models", "tiny"))
    compared = place.root / place.pinmill("compare", "tiny", first, second, "--page").stdout.strip()
    folder = place.root / "reports/_pages"
    pages = {name: folder / "tiny" / f"{name}.html" for name in STAGES}
    return {"index": folder / "index.html", **pages, "comparison": compared}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, trained_once: Workplace) -> dict[str, Path]:
    """The pages of a real workflow whose rows, labels, title and prose try to be something else than text."""
    place = trained_once.copy(tmp_path_factory.mktemp("hostile") / "project")
    with (place.root / "hostile.csv").open("w", newline="") as file:
        labels = [LABELS[n % 2 if n % 9 else 1 - n % 2] for n in range(160)]  # one in nine is wrong: there are mistakes
        rows = [(f"{HOSTILE} {['bad', 'good'][n % 2]} {n}", label) for n, label in enumerate(labels)]
        csv.writer(file).writerows([("text", "label"), *rows])
    (place.root / "params/hostile.yaml").write_text(PARAMS)
    place.pinmill("run", "hostile", code=None)
    folder = place.root / "reports/_pages"
    run = place.json("runs", "hostile")[0]
    assert run["status"] in ("succeeded", "rejected")
    return {"index": folder / "index.html", **{name: place.root / path for name, path in run["pages"].items()}}


@pytest.fixture(scope="module")
def by_quarto(real_quarto: Path, site: dict[str, Path], trained_once: Workplace, tmp_path_factory) -> dict[str, Path]:
    """The pages of the same runs, rendered by the real Quarto."""
    before, root = site["index"].parents[2], tmp_path_factory.mktemp("quarto") / "project"
    place = type(trained_once)(before).copy(root)
    shutil.copytree(ROOT / "reports", root / "reports", ignore=shutil.ignore_patterns("_pages"), dirs_exist_ok=True)
    place.pinmill("report", "--engine", "quarto", PATH=f"{real_quarto.parent}{os.pathsep}{os.environ['PATH']}")
    return {name: root / site[name].relative_to(before) for name in FOUR}


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_one_small_file_that_asks_for_nothing_and_complains_of_nothing(visit, site, name):
    page, events = visit(site[name].as_uri())
    assert events == [site[name].as_uri()]
    assert page.locator(".lead").inner_text().strip().endswith(".")
    assert site[name].stat().st_size < 5_000_000
    sizes = page.evaluate("[...document.images].map(i => [i.naturalWidth > 100, i.getBoundingClientRect().width > 60])")
    assert sizes == [[True, True]] * len(sizes)
    assert bool(sizes) == (name not in ("model-card", "comparison"))


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_has_a_serious_barrier(visit, site, name, scheme, width):
    page, _ = visit(site[name].as_uri(), color_scheme=scheme, viewport={"width": width, "height": 900})
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["help"]) for each in found if each["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.browser
@pytest.mark.parametrize("name", [name for name in PAGES if name != "index"])
def test_contents_lead_to_what_they_name(visit, site, name):
    page, _ = visit(site[name].as_uri(), viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    links = page.locator("nav.contents a")
    assert links.count() > 2
    for number in range(links.count()):
        links.nth(number).click()
        assert page.locator(":target").inner_text() == links.nth(number).inner_text()
        assert 0 <= page.locator(":target").bounding_box()["y"] < 900


@pytest.mark.quarto
@pytest.mark.browser
@pytest.mark.parametrize("name", FOUR)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_quarto_s_pages_ask_for_nothing_and_what_is_ours_in_them_has_no_barrier(visit, by_quarto, name, scheme):
    page, events = visit(by_quarto[name].as_uri(), color_scheme=scheme)
    assert [event for event in events if not event.startswith("data:")] == [by_quarto[name].as_uri()]
    assert by_quarto[name].stat().st_size < 5_000_000
    found = Axe().run(page, context="main").response["violations"]
    assert [(each["id"], each["help"]) for each in found if each["impact"] in ("serious", "critical")] == []


@pytest.mark.browser
def test_every_page_is_reached_from_the_index_and_leads_back(visit, site):
    page, _ = visit(site["index"].as_uri())
    for title in ("Data", "Training", "Evaluation", "Model card"):
        page.get_by_role("link", name=title, exact=True).first.click()
        assert page.locator("h1").inner_text() == title
        page.locator("nav[aria-label=Pages] a").first.click()
        assert Path(page.url.removeprefix("file://")) == site["index"]


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index", *STAGES])
def test_what_data_says_is_text_and_nothing_else(visit, hostile, name):
    page, events = visit(hostile[name].as_uri())
    assert events == [hostile[name].as_uri()]
    assert page.evaluate("typeof pwned") == "undefined"
    assert page.locator("script, main b, main i").count() == 0
    text = page.locator("body").inner_text()
    assert 'A "title": <b>bold</b> {{< env HOME >}} 🎉' in text
    if name in ("data", "evaluation"):
        assert "{{< include ../../../.env >}} ::: <script>pwned=1</script> $x$ | `c` *b* @fig-inputs 🎉" in text
