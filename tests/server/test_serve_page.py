"""The page of `semanticspec serve` in headless Chromium, with the bundled pair."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from semanticspec.demo.grammar import answer_of
from tests.support.serving_process import Serving, serving

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
Browser, Page, expect = playwright.Browser, playwright.Page, playwright.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# In CI a missing browser is a failure, elsewhere the tests are skipped.
REQUIRED = os.environ.get("SEMANTICSPEC_BROWSER_TESTS") == "needed"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="needs Chromium: apt-get install chromium"),
]
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
TIMEOUT_MS = 120_000
KEY = "open-sesame"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *QUIET])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving() as one:
        yield one


@contextmanager
def opened(browser: Browser, url: str, **options) -> Iterator[Page]:
    """Opens the page in a fresh profile; fails on console errors and on requests to other hosts."""
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request", lambda request: problems.append(request.url) if not request.url.startswith(url) else None
    )
    try:
        page.goto(url)
        yield page
        # Chromium logs 4xx responses itself; tests that cause one check what the page shows.
        assert [p for p in problems if "Failed to load resource" not in p and "data:," not in p] == []
    finally:
        context.close()


def click(page: Page, button: str = "Generate") -> None:
    expect(page.get_by_label("Prompt")).not_to_have_value("")  # filled in when the model is known
    page.get_by_role("button", name=button, exact=True).click()


def wait_until_done(page: Page) -> None:
    expect(page.get_by_role("status")).to_contain_text(re.compile(r"Done|Stopped"), timeout=TIMEOUT_MS)


def test_steps_appear_one_by_one_with_their_authors(browser, server):
    with opened(browser, server.url) as page:
        expect(page.locator("#model")).to_have_text("bundled")
        page.evaluate(
            """() => {
              window.seen = [];
              const steps = () => document.querySelectorAll(".steps > li:not(.pending)");
              new MutationObserver(() => window.seen.push(steps().length)).observe(
                document.getElementById("runs"), { childList: true, subtree: true });
            }"""
        )
        page.get_by_label("Examples").select_option(index=3)
        click(page)
        wait_until_done(page)
        steps = page.locator(".steps > li")
        # Not all at once: the list grew step by step.
        assert len(set(page.evaluate("window.seen")) - {0}) == steps.count() >= 4
        assert page.locator(".steps > .pending").count() == 0
        accepted = page.locator(".steps > .draft").filter(has_text="accepted:").first
        expect(accepted.locator(".note").last).to_contain_text(
            re.compile(r"p_target [01]\.\d{3}, p_draft [01]\.\d{3}, rule \w+")
        )
        expect(page.locator(".bar")).to_have_attribute(
            "aria-label", re.compile(r"\d+% of the text by the draft, \d+%")
        )
        expect(page.locator(".run")).to_contain_text("drafted steps accepted · lossy")
        assert answer_of(page.locator(".answer .text").inner_text()) == 40  # (9 + 16 - 5) * 2


def test_rejected_steps_are_crossed_out_and_fold(browser, server):
    with opened(browser, server.url) as page:
        page.get_by_label("Strictness").fill("3")
        expect(page.locator("#strictness-value")).to_have_text("8.00")
        for seed in range(8):
            page.get_by_label("Seed").fill(str(seed))
            click(page)
            wait_until_done(page)
            if page.locator(".rejected del").count():
                break
        rejected = page.locator(".steps > .rejected").first
        text = rejected.locator("del")
        expect(text).to_be_visible()
        assert "line-through" in text.evaluate("e => getComputedStyle(e).textDecorationLine")
        rejected.locator("summary").press("Enter")
        expect(text).to_be_hidden()
        # The target writes the replacement.
        expect(page.locator(".steps > .rejected + li").first).to_have_class(re.compile("target"))


def test_the_comparison_times_both_runs_and_shows_the_speedup(browser, server):
    with opened(browser, server.url) as page:
        click(page, "Compare with target alone")
        wait_until_done(page)
        runs = page.locator(".run")
        expect(runs).to_have_count(2)
        speculative, alone = (
            float(runs.nth(i).locator(".clock").inner_text().removesuffix(" s")) for i in (0, 1)
        )
        speedup = re.search(r"Speedup: ([\d.]+)x", page.get_by_role("status").inner_text())
        assert speculative > 0
        assert float(speedup[1]) == pytest.approx(alone / speculative, rel=0.05)
        assert runs.nth(1).locator(".steps > .draft, .steps > .rejected").count() == 0
        expect(runs.nth(1)).to_contain_text("lossless")


def test_stop_ends_decoding_on_the_server(browser, server):
    with opened(browser, server.url) as page:
        # An answer that does not end by itself.
        page.route("**/v1/chat/completions", make_endless)
        click(page)
        page.locator(".steps > li").nth(2).wait_for()
        click(page, "Stop")
        expect(page.get_by_role("status")).to_have_text("Stopped.")
        expect(page.get_by_role("button", name="Generate")).to_be_enabled()
        assert page.locator(".steps > li").count() >= 2  # the received steps stay
        page.wait_for_function(
            "async () => /num_requests_running\\{.*\\} 0/.test(await (await fetch('metrics')).text())"
        )


def make_endless(route) -> None:
    body = route.request.post_data_json | {"temperature": 10, "top_p": 1, "seed": 1}  # without `adaptive`
    route.continue_(post_data=body)


def test_errors_are_shown_until_the_next_request(browser, server):
    with opened(browser, server.url) as page:
        error = page.get_by_role("alert")
        prompt = page.get_by_label("Prompt")
        original = prompt.input_value()
        prompt.fill("Mia has 14 pens. " * 400)
        click(page)
        expect(error).to_contain_text("Error: the prompt has")
        expect(error).to_contain_text("shorten the prompt")
        prompt.fill(original)
        click(page)
        expect(error).to_be_hidden()
        wait_until_done(page)


def test_an_unreachable_server_is_reported(browser):
    with serving() as server, opened(browser, server.url) as page:
        expect(page.locator("#model")).to_have_text("bundled")
        server.process.kill()
        server.process.wait()
        click(page)
        expect(page.get_by_role("alert")).to_contain_text("Error")
        expect(page.get_by_role("button", name="Generate")).to_be_enabled()


def test_the_page_asks_for_the_key_and_does_not_store_it(browser):
    with serving("--api-key", KEY) as server, opened(browser, server.url) as page:
        expect(page.get_by_role("alert")).to_contain_text("API key is missing or wrong")
        page.get_by_label("API key").fill(KEY)
        page.get_by_label("API key").press("Tab")
        expect(page.locator("#model")).to_have_text("bundled")
        click(page)
        wait_until_done(page)
        assert (
            page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])") == '[{},{},""]'
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_is_readable(browser, server, scheme):
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme, "has_touch": True}
    with opened(browser, server.url, **phone) as page:
        click(page, "Compare with target alone")
        wait_until_done(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        first, second = (page.locator(".run").nth(i).bounding_box() for i in (0, 1))
        assert second["y"] > first["y"] + first["height"]  # one below the other
        for words in (".quiet", ".steps .note", ".steps .text", ".who"):
            assert contrast(page, words) >= 4.5, words  # WCAG 2, level AA


def contrast(page: Page, selector: str) -> float:
    """Returns the lowest contrast ratio (WCAG) of the selected elements with their background."""
    return page.evaluate(
        """(selector) => {
          const light = (colour) => {
            const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => v / 255)
              .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const behind = (e) => {
            const colour = getComputedStyle(e).backgroundColor;
            return colour !== "rgba(0, 0, 0, 0)" || !e.parentElement ? colour : behind(e.parentElement);
          };
          const ratios = [...document.querySelectorAll(selector)].map((e) => {
            const pair = [light(getComputedStyle(e).color), light(behind(e))];
            return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
          });
          return Math.min(...ratios);
        }""",
        selector,
    )


def test_the_page_works_by_keyboard_and_screen_reader(browser, server):
    with opened(browser, server.url) as page:
        reached = []
        for _ in range(6):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
        assert reached == ["example", "prompt", "strictness", "seed", "generate", "compare"]
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.get_by_label("Strictness").press("ArrowRight")
        expect(page.get_by_label("Strictness")).to_have_attribute("aria-valuetext", "0.59")
        page.get_by_label("Seed").press("Enter")
        wait_until_done(page)
        expect(page.get_by_role("list", name="Steps: Answer")).to_be_visible()
        expect(page.get_by_role("img", name=re.compile("of the text by the draft"))).to_be_visible()
