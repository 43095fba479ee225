"""What is written is what is seen, read off a real page: the table of cases, CommonMark's own examples, code in every
language. Hundreds of answers stand on one page, imported as a conversation."""

from __future__ import annotations

import html
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import Browser, Page, expect

from tests.browser.steps import open_section, open_tab, served
from tests.ui.conversation.test_markdown import ALIASES, CODES
from ui.conversation.tabs import PROGRAMMING_LANGUAGES

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
CASES = tomllib.loads((ROOT / "tests" / "rendering" / "cases.toml").read_text("utf-8"))["case"]
SPECIFICATION = ROOT / "node_modules" / "commonmark-spec" / "spec.txt"
EXAMPLE = re.compile(r"^`{32} example\n(.*?)^\.\n(.*?)^`{32}$", re.M | re.S)

SEEN = """(message) => {
  const NAMES = { STRONG: "b", EM: "i", S: "s" };
  const flat = (text) => text.replace(/[ \\t\\r\\n\\f]+/g, " ");
  const read = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return flat(node.data);
    if (node.nodeType !== Node.ELEMENT_NODE || node.matches(".code-tools, .mermaid")) return "";
    const tex = () => flat(node.querySelector("annotation").textContent);
    if (node.matches(".katex-display")) return ` ⟦M ${tex()}⟧ `;
    if (node.matches(".katex")) return `⟦m ${tex()}⟧`;
    if (node.matches("pre")) return ` ⟦pre ${node.textContent}⟧ `;
    const inside = [...node.childNodes].map(read).join("");
    if (node.matches("code")) return `⟦c ${inside}⟧`;
    if (NAMES[node.tagName]) return `⟦${NAMES[node.tagName]} ${inside}⟧`;
    return node.matches("br, p, li, td, th, tr, hr, h1, h2, h3, h4, h5, h6, blockquote") ? " " + inside : inside;
  };
  const text = [...message.querySelectorAll(".prose")].map(read).join("");
  return text.split(/(⟦pre [^]*?⟧)/).map((part, i) => (i % 2 ? part : part.replace(/ {2,}/g, " "))).join("").trim();
}"""
WORDS = "(message) => [...message.querySelectorAll('.prose')].map((part) => part.textContent).join('')"
SOURCE = "(message) => message.querySelector('.source .typed').textContent"
CODE = "(message) => [...message.querySelectorAll('.prose pre code')].map((code) => code.textContent)"
TYPED = "(message) => message.querySelector('.typed').textContent"


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    with served("-m", "tests.browser.echo", env={}) as address:
        yield address


@pytest.fixture
def page(browser: Browser, echo: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    wrong_diagram = re.compile("UnknownDiagramError|Parse error")  # what gradio logs of a diagram that cannot be drawn
    page.goto(echo)
    page.locator("#tab-chat").get_by_text("Licence:").wait_for()
    yield page
    context.close()
    assert [error for error in errors if not wrong_diagram.search(error)] == []


def show(page: Page, answers: Sequence[str], tmp_path: Path) -> Callable[[str], list[object]]:
    """Puts the answers on the page, each to a question that says the same; returns what reads each of them."""
    turns = [{"user": text, "replies": [{"answer": text, "state": "done"}]} for text in answers]
    file = tmp_path / "conversation.json"
    file.write_text(json.dumps({"format": "qwen-playground-conversation", "version": 1, "turns": turns}), "utf-8")
    screen = open_tab(page, "chat")
    open_section(screen, "Conversation")
    with page.expect_file_chooser() as chooser:
        screen.get_by_role("button", name="Import").click()
    chooser.value.set_files(file)
    expect(page.locator("#transcript-chat .bot-row")).to_have_count(len(answers))
    newest = "[...document.querySelectorAll('#transcript-chat .source .typed')].at(-1)?.textContent"
    page.wait_for_function(f"(text) => {newest} === text", arg=answers[-1])
    page.wait_for_function(
        "() => [...document.querySelectorAll('.formula')].every((one) => one.querySelector('.katex'))"
    )

    def read(script: str, rows: str = ".bot-row") -> list[object]:
        return page.locator(f"#transcript-chat {rows}").evaluate_all(f"(rows) => rows.map({script})")

    return read


def test_the_table_of_cases_is_seen_and_copied_as_it_says(page: Page, tmp_path: Path) -> None:
    texts = [case["text"] for case in CASES]
    read = show(page, texts, tmp_path)
    got = dict(zip(texts, read(SEEN), strict=True))
    wrong = {case["text"]: (got[case["text"]], case["seen"]) for case in CASES if got[case["text"]] != case["seen"]}
    assert wrong == {}
    assert read(SOURCE) == texts
    assert read(TYPED, ".user-row") == texts
    for row in (0, len(texts) // 2, len(texts) - 1):
        for place in (".user-row + .message-buttons", ".bot-row"):
            page.locator(f"#transcript-chat {place}").nth(row).locator(".copy-text").click()
            assert page.evaluate("navigator.clipboard.readText()") == texts[row]


def examples() -> list[str]:
    """CommonMark's own, but for those about raw HTML and about pictures, which are not obeyed."""
    found = [text.replace("→", "\t") for text, _ in EXAMPLE.findall(SPECIFICATION.read_text("utf-8"))]
    commonmark = MarkdownIt("commonmark")

    def is_obeyed_elsewhere(text: str) -> bool:
        tokens = commonmark.parse(text)
        every = [*tokens, *(child for token in tokens for child in token.children or ())]
        return any(token.type in ("html_block", "html_inline", "image") for token in every)

    return [text for text in found if not is_obeyed_elsewhere(text)]


def words_of(rendered: str) -> str:
    return re.sub(r"\s+", "", html.unescape(re.sub(r"<[^>]*>", "", rendered)))


def test_commonmarks_own_examples_read_as_markdown_it_reads_them(page: Page, tmp_path: Path) -> None:
    texts = [text for text in examples() if text.strip()]
    assert len(texts) > 480
    read = show(page, texts, tmp_path)
    commonmark = MarkdownIt("commonmark")
    seen = [re.sub(r"\s+", "", str(words)) for words in read(WORDS)]
    wrong = {
        text: got
        for text, got in zip(texts, seen, strict=True)
        if got.replace("\ufffd", "") != words_of(commonmark.render(text)).replace("\ufffd", "")
    }
    assert wrong == {}


def test_code_in_every_language_is_shown_and_copied_to_the_byte(page: Page, tmp_path: Path) -> None:
    """Nothing that colours code runs in the browser, so that it cannot matter which language comes first."""
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    languages = [*(name.lower() for name in PROGRAMMING_LANGUAGES), *ALIASES]
    codes = [CODES[number % len(CODES)] for number in range(len(languages))]
    read = show(page, [f"````{name}\n{code}````" for name, code in zip(languages, codes, strict=True)], tmp_path)
    assert read(CODE) == [[code] for code in codes]
    assert not [url for url in requested if "prism" in url]
    copy = page.locator("#transcript-chat .copy-code")
    for row in range(0, len(codes), 20):
        copy.nth(row).click()
        assert page.evaluate("navigator.clipboard.readText()") == codes[row]
        with page.expect_download() as download:
            page.locator("#transcript-chat .download-code").nth(row).click()
        assert Path(download.value.path()).read_bytes().decode("utf-8") == codes[row]


def test_a_question_is_edited_as_it_was_typed_and_not_as_it_is_shown(page: Page, tmp_path: Path) -> None:
    typed = '<b>&lt; "C:\\new\\_file" `__init__`\n\n    # main\n'
    read = show(page, [typed], tmp_path)
    page.get_by_role("button", name="Edit").click()
    box = page.locator("#transcript-chat .edit-textarea")
    expect(box).to_have_value(typed)
    box.fill(typed + "and <i>more</i>")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#transcript-chat .figures")).to_be_visible()
    assert read(TYPED, ".user-row") == [typed + "and <i>more</i>"]
    assert read(SOURCE) == [typed + "and <i>more</i>"]


def test_a_diagram_is_drawn_below_its_source_with_labels_that_are_text(page: Page, tmp_path: Path) -> None:
    drawn = '```mermaid\ngraph TD\n  A[Tea] --> B["<img src=x> <b>hot</b>"]\n```'
    wrong = "```mermaid\nthis is no diagram\n```"
    settings = '```mermaid\n%%{init: {"htmlLabels": true}}%%\ngraph TD\n  A --> B\n```'
    read = show(page, [drawn, wrong, settings], tmp_path)
    assert read(CODE) == [[text.removeprefix("```mermaid\n").removesuffix("```")] for text in (drawn, wrong, settings)]
    rows = page.locator("#transcript-chat .bot-row")
    expect(rows.nth(0).locator(".mermaid svg")).to_be_visible()
    drawing = rows.nth(0).locator(".mermaid svg").bounding_box()
    assert drawing is not None
    assert drawing["width"] > 60, "it was measured while nobody could see it"
    expect(rows.nth(0).locator(".mermaid text").last).to_contain_text("<img")
    assert rows.nth(0).locator(".mermaid img, .mermaid b").count() == 0
    expect(rows.nth(1).locator(".mermaid")).to_be_hidden()
    assert rows.nth(2).locator(".mermaid").count() == 0
    expect(page.get_by_text("Syntax error in text")).to_have_count(0)


def test_the_button_copies_what_stands_there_now_and_not_what_stood_there_before(page: Page, tmp_path: Path) -> None:
    for text in ("the first one", "```py\nsecond()\n```", "a third"):
        show(page, [text, f"{text}, again"], tmp_path)
        expect(page.locator("#transcript-chat .bot-row .copy-text")).to_have_count(2)
        page.locator("#transcript-chat .bot-row").first.locator(".copy-text").click()
        assert page.evaluate("navigator.clipboard.readText()") == text
