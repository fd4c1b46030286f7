"""The page in headless Chromium: charts drawn, slices scrolled, no error, no request."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import SHAPE, Made
from nnunet_fm.cli.main import main

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]


@dataclass
class Visit:
    """A page, and what it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def value(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def picture(self) -> str:
        return str(self.value("document.getElementById('canvas').toDataURL()"))

    def slice(self) -> int:
        return int(self.value("document.getElementById('canvas').dataset.slice"))


@pytest.fixture
def visit(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visit]:
    if BROWSER is None:
        pytest.skip("no Chromium on the path")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    assert main(["report", str(made.sweep), "-o", str(tmp_path / "out put"), "-np", "1"]) == 0
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        visit = Visit(browser.new_page())
        visit.page.on("console", lambda message: visit.said.append(message.text))
        visit.page.on("pageerror", lambda error: visit.said.append(str(error)))
        visit.page.on("request", lambda request: visit.requests.append(request.url))
        visit.page.goto((tmp_path / "out put" / "report.html").as_uri())
        visit.page.wait_for_selector("#canvas[data-slice]", timeout=60000)
        yield visit
        browser.close()


def test_charts_viewer_and_silence(visit: Visit) -> None:
    charts = visit.value(
        "[...document.querySelectorAll('img.chart')].map(i => i.complete && i.naturalWidth)"
    )
    assert len(charts) >= 5
    assert all(width > 100 for width in charts)
    _scroll_slices(visit)
    _switch_contours(visit)
    _other_planes_regions_and_cases(visit)
    assert visit.said == []
    assert [url.split(":")[0] for url in visit.requests if not url.startswith("data:")] == ["file"]


def _scroll_slices(visit: Visit) -> None:
    visit.page.focus("#canvas")
    before, picture = visit.slice(), visit.picture()
    visit.page.keyboard.press("ArrowUp")
    assert visit.slice() == before + 1
    assert visit.picture() != picture
    visit.page.keyboard.press("ArrowDown")
    assert visit.picture() == picture
    visit.page.keyboard.press("Home")
    visit.page.keyboard.press("ArrowDown")
    assert visit.slice() == 0
    visit.page.keyboard.press("End")
    assert visit.slice() == SHAPE[0] - 1
    assert visit.page.inner_text("#where") == f"{SHAPE[0]} of {SHAPE[0]}"
    visit.page.hover("#canvas")
    visit.page.mouse.wheel(0, 100)
    visit.page.wait_for_selector(f"#canvas[data-slice='{SHAPE[0] - 2}']")
    visit.page.fill("#slice", str(before))
    assert visit.picture() == picture
    assert "axial slice" in visit.page.get_attribute("#canvas", "aria-label")


def _switch_contours(visit: Visit) -> None:
    names = visit.value("[...document.querySelectorAll('#overlays label')].map(l => l.textContent)")
    assert names == ["truth (0)", "good (1)", "stock (2)", "poor (3)"]
    with_all = visit.picture()
    visit.page.focus("#canvas")
    for number in range(4):
        visit.page.keyboard.press(str(number))
    bare = visit.picture()
    assert bare != with_all
    visit.page.keyboard.press("3")
    assert visit.picture() not in (bare, with_all)
    visit.page.keyboard.press("3")
    assert visit.picture() == bare
    for number in range(4):
        visit.page.keyboard.press(str(number))
    assert visit.picture() == with_all


def _other_planes_regions_and_cases(visit: Visit) -> None:
    with_whole = visit.picture()
    visit.page.select_option("#region", label="core")
    assert visit.picture() != with_whole
    visit.page.select_option("#plane", label="coronal")
    assert visit.value("document.getElementById('slice').max") == str(SHAPE[1] - 1)
    for sides in (
        "[canvas.width, canvas.height]",
        "(r => [r.width, r.height])(canvas.getBoundingClientRect())",
    ):
        wide, high = visit.value(sides)
        assert high / wide == pytest.approx(
            SHAPE[0] * 4 / (SHAPE[2] * 1), rel=0.02
        )  # millimetres, not voxels
    first = visit.picture()
    visit.page.select_option("#channel", label="FLAIR")
    assert visit.picture() != first
    visit.page.select_option("#case", index=1)
    visit.page.wait_for_selector("#canvas[aria-label*='median']")
    assert "axial" in visit.page.get_attribute("#canvas", "aria-label")
