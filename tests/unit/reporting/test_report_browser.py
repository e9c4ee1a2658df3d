"""The report in headless Chromium: it sorts, filters and opens a cell, by keyboard too, and asks for nothing."""

import pytest

from harness.reporting.report import write
from harness.reporting.report.screenshot import browsing, chromium, picture

expect = pytest.importorskip("playwright.sync_api").expect
"""Waits for what it is told to see; the page's policy forbids functions that are evaluated in it over and over."""

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here; install Debian's package `chromium`")

CONTRAST = """() => {
  const parse = (text) => { const p = text.match(/[\\d.]+/g).map(Number); return p.length < 4 ? [...p, 1] : p; };
  const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const poor = [];
  let seen = 0;
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(e.tagName)) continue;
    seen += 1;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([e.tagName, e.className, e.textContent.slice(0, 30), ratio]);
  }
  return { poor, seen };
}"""


@pytest.fixture(scope="module")
def report(embedded, tmp_path_factory):
    return write(*embedded, tmp_path_factory.mktemp("report") / "index.html")


@pytest.fixture
def opened(report):
    """Opens the report in a page of given size and scheme; afterwards nothing was said and nothing asked for."""
    said, asked = [], []
    with browsing(viewport={"width": 1280, "height": 900}) as page:
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        yield page
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", report.as_uri()))] == []


def column(page, head):
    """The texts of a column."""
    heads = [text.strip() for text in page.locator("#cells thead th").all_inner_texts()]
    return page.locator(f"#cells tbody tr > :nth-child({heads.index(head) + 1})").all_inner_texts()


def count(page):
    return page.locator("#count").inner_text()


def test_a_view_of_own_arms_comes_first(opened):
    assert count(opened) == "25 of 33 cells"
    assert opened.locator("#filters select[name=a]").input_value() == "own"


def test_heads_sort_either_way_and_say_so(opened):
    head = opened.locator("#cells thead th", has_text="score")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    numbers = [float(text) for text in column(opened, "score")]
    assert numbers == sorted(numbers, reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in column(opened, "score")] == sorted(numbers)
    opened.locator("#cells thead th", has_text="own − donor").locator("button").click()
    assert head.get_attribute("aria-sort") == "none"
    gains = column(opened, "own − donor")
    filled = [text for text in gains if text]
    assert filled
    assert gains[: len(filled)] == filled  # what did not run stands last


def test_filters_narrow_and_are_taken_off(opened):
    opened.select_option("#filters select[name=f]", "online state")
    opened.select_option("#filters select[name=c]", "removed")
    assert count(opened) == "6 of 33 cells"
    assert set(column(opened, "row")) == {"delta_mem_tsw", "delta_mem_ssw"}
    opened.fill("#filters input", "SSW locomo")
    assert count(opened) == "1 of 33 cells"
    opened.fill("#filters input", "no such cell")
    assert "no cell is like this" in count(opened)
    opened.click("#filters button[type=reset]")
    expect(opened.locator("#count")).to_have_text("33 of 33 cells")


def test_a_cell_opens_to_its_record(opened):
    opened.locator("#cells tbody a", has_text="delta_mem_tsw").first.click()
    dialog = opened.locator("dialog[open]")
    text = dialog.inner_text()
    assert "delta_mem_tsw" in text
    assert "Samples" in text
    assert "3 passed, 1 warned" in text
    assert "#cell=smollm2%2Fdelta_mem_tsw" in opened.url
    dialog.locator("text=What ran, and from what").click()
    assert "c0ffee" in dialog.inner_text()
    first = dialog.locator(".lead").inner_text()
    dialog.locator("a", has_text="Next").click()
    expect(dialog.locator(".lead")).not_to_have_text(first)
    dialog.locator("button", has_text="Close").click()
    expect(opened.locator("dialog[open]")).to_have_count(0)
    assert "#cell" not in opened.url


def test_a_link_to_a_cell_opens_it(report, opened):
    expect(opened.locator("dialog[open]")).to_have_count(0)
    opened.goto(f"{report.as_uri()}#cell=smollm2%2Flora%2Fhotpotqa%2Fremoved%2Fown")
    opened.reload()
    expect(opened.locator("#cell-title")).to_have_text("lora")
    opened.goto(f"{report.as_uri()}#cell=%E0%A4%A")  # cut off
    expect(opened.locator("dialog[open]")).to_have_count(0)


def test_all_of_it_goes_by_keyboard(opened):
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.id") == "main"
    for _ in range(60):  # on to the head of the column of scores
        opened.keyboard.press("Tab")
        if opened.evaluate("document.activeElement.textContent") == "score":
            break
    opened.keyboard.press("Enter")
    assert opened.locator("th[aria-sort=descending]").inner_text().strip() == "score"
    assert opened.evaluate("document.activeElement.textContent") == "score"
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for _ in range(20):
        opened.keyboard.press("Tab")
        if opened.evaluate("document.activeElement.matches('#cells tbody a')"):
            break
    chosen = opened.evaluate("document.activeElement.getAttribute('href')")
    opened.keyboard.press("Enter")
    expect(opened.locator("dialog[open]")).to_have_count(1)
    expect(opened.locator("#cell-title")).to_be_focused()
    opened.keyboard.press("Escape")
    expect(opened.locator("dialog[open]")).to_have_count(0)
    expect(opened.locator(f"#cells tbody a[href='{chosen}']")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_text_stands_out_and_the_page_is_as_wide_as_the_screen(opened, scheme, width):
    opened.set_viewport_size({"width": width, "height": 844})
    opened.emulate_media(color_scheme=scheme)
    opened.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    found = opened.evaluate(CONTRAST)
    assert found["seen"] > 200
    assert found["poor"] == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.locator("#cells tbody a").first.click()
    opened.wait_for_selector("dialog[open]")
    assert opened.evaluate(CONTRAST)["poor"] == []
    assert opened.evaluate("document.querySelector('dialog').scrollWidth") <= width


def test_without_its_script_the_page_shows_the_main_results(report):
    with browsing(java_script_enabled=False) as page:
        page.goto(report.as_uri())
        text = page.inner_text("#leaderboard")
    assert "delta_mem_tsw" in text
    assert "these are the main results" in text


def test_hostile_names_and_answers_do_nothing(invented, tmp_path):
    hostile = '"><img src=x onerror="document.title=1"></script><script>document.title=2</script>'
    chosen = invented.experiment(rows=["frozen"], title=hostile, tasks=[{"task": "hotpotqa"}])
    invented.fill(chosen, tmp_path)
    out = write(chosen, tmp_path, tmp_path / "index.html")
    with browsing() as page:
        page.goto(out.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        assert page.inner_text("h1") == hostile
        assert page.title() == f"{hostile}: report"


def test_a_picture_is_small(report, tmp_path):
    path = picture(report, tmp_path / "report.png", height=900)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 300_000
