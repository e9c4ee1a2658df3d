"""The report in a browser that is installed here: ``python -m harness.reporting.report.screenshot EXPERIMENT``.

Playwright drives it and is no dependency of the harness, only of its development; it never fetches a browser.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.errors import HarnessError
from harness.records import atomic

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
COLOURS = 128
"""Of the picture, so that it stays small; text and a few hues need no more."""


def chromium() -> str | None:
    """The path of an installed Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def browsing(**context: Any) -> Iterator[Page]:
    """A page of a headless Chromium that reaches nothing but files; ``context`` as Playwright's ``new_context``.

    Raises:
        HarnessError: there is no Chromium, or no Playwright.
    """
    path = chromium()
    if path is None:
        raise HarnessError("there is no Chromium; install Debian's package `chromium`")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise HarnessError("playwright is not installed; install the extra `dev`") from error
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path)
        try:
            yield browser.new_context(offline=True, **context).new_page()
        finally:
            browser.close()


def picture(report: Path, out: Path, width: int = 1280, height: int = 1500, scheme: Any = "light") -> Path:
    """Take a picture of the top of a report, and give its path."""
    from PIL import Image

    with browsing(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce") as page:
        page.goto(report.resolve().as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        taken = Image.open(io.BytesIO(page.screenshot()))
    with atomic(out) as temporary:
        taken.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(temporary, "PNG", optimize=True)
    return out


def main(
    name: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Name of a file in config/.")] = "embedded",
    results: Annotated[Path, typer.Option(help="Folder of all results.")] = Path("results/reference"),
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("docs/report.png"),
    width: Annotated[int, typer.Option(help="Pixels.")] = 1280,
    height: Annotated[int, typer.Option(help="Pixels.")] = 1500,
) -> None:
    """Build the report of an experiment and take a picture of it."""
    from harness import config
    from harness.reporting.report import FILE, write

    with tempfile.TemporaryDirectory() as folder:
        report = write(config.load(name, []), results, Path(folder) / FILE)
        typer.echo(picture(report, out, width, height))


if __name__ == "__main__":
    typer.run(main)
