"""The image tab in a real browser: pictures in, boxes on them. What is found comes from a script, so that a test of the
drawing does not depend on what a model knows; the tiny demo model answers in test_page.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.browser.steps import ROOT, answered, asking, open_section, open_tab, send, served
from tests.drawn import drawn
from tests.hostile_pictures import HOSTILE, UNUSUAL
from ui.conversation.pictures import MOST_PICTURES

pytestmark = pytest.mark.browser

SHAPES = ROOT / "examples" / "pictures" / "shapes.png"
TRIANGLE = (120, 314, 288, 459)  # where the green triangle lies, x0, y0, x1, y1, on 512 x 512 pixels


@pytest.fixture(scope="module")
def playground() -> Iterator[str]:
    with served("-m", "tests.browser.two_engines", env={}) as address:
        yield address


@pytest.fixture
def screen(page: Page) -> Locator:
    return open_tab(page, "image")


def attach(screen: Locator, *files: Path) -> None:
    screen.locator("input[type=file]").set_input_files(list(files))


def ask_for_the_triangle(page: Page, screen: Locator) -> Locator:
    """Attaches the picture, asks, and returns the one mark on it."""
    attach(screen, SHAPES)
    screen.get_by_text("goes with the next message").wait_for()
    send(page, "image", "Where is the green triangle?")
    answered(page, "image")
    mark = screen.locator(".stage .mark")
    expect(mark).to_have_count(1)
    return mark


def test_a_question_is_answered_with_a_box_on_the_picture(page: Page, screen: Locator) -> None:
    mark = ask_for_the_triangle(page, screen)
    answer = page.locator("#transcript-image .bot-row").last
    expect(answer).not_to_contain_text("bbox_2d", use_inner_text=True)  # its source lies unseen beside it
    assert_lies_at_the_triangle(page, 512, 512)
    mark.hover()
    expect(mark.locator("span")).to_have_css("opacity", "1")
    expect(mark.locator("span")).to_have_text("green triangle")


PLACES = """(parts) => parts.map((part) => {
    const at = document.querySelector(".stage figure:not([hidden]) " + part).getBoundingClientRect();
    return [at.left, at.top, at.right, at.bottom];
})"""


def assert_lies_at_the_triangle(page: Page, width: int, height: int) -> None:
    """The picture fills its frame in its own proportions, so that what is placed in percent lies where it is drawn.

    All are measured in one moment: the page may still be making room."""
    shown, frame, mark = page.evaluate(PLACES, ["img", ".canvas", ".mark"])
    assert shown == frame
    left, top, right, bottom = shown
    assert (right - left) / (bottom - top) == pytest.approx(width / height, rel=0.02)
    found = [(mark[n] - shown[n % 2]) / (shown[n % 2 + 2] - shown[n % 2]) for n in range(4)]
    assert found == pytest.approx([true / 512 for true in TRIANGLE], abs=0.015)


@pytest.mark.parametrize("size", [(640, 200), (1024, 64), (64, 64), (120, 640)])
@pytest.mark.parametrize("across", [1280, 390])
def test_marks_lie_where_they_belong_whatever_the_picture_is_like(
    page: Page, screen: Locator, size: tuple[int, int], across: int
) -> None:
    upload(screen, "any.png", drawn(*size))
    screen.get_by_text("goes with the next message").wait_for()
    send(page, "image", "Where is the green triangle?")
    expect(screen.locator(".stage .mark")).to_have_count(1)
    screen.locator(".settings .toggle-button").click()
    expect(screen.locator(".settings.open")).to_have_count(0)
    page.set_viewport_size({"width": across, "height": 844})
    page.wait_for_function("document.querySelector('.stage').clientWidth > 300")  # the sidebar gives way slowly
    assert_lies_at_the_triangle(page, *size)


def test_a_click_on_what_was_found_looks_closer(page: Page, screen: Locator) -> None:
    mark = ask_for_the_triangle(page, screen)
    with asking(page, "image"):
        mark.click()
    answered(page, "image")
    expect(page.locator("#transcript-image .attached")).to_have_count(2)
    expect(screen.locator(".stage nav button")).to_have_count(2)
    screen.locator(".stage nav button").first.click()
    expect(screen.locator(".stage figure:visible")).to_contain_text("Picture 1")


def test_the_boxes_can_be_copied_as_json(page: Page, screen: Locator) -> None:
    ask_for_the_triangle(page, screen)
    (box,) = json.loads(screen.locator("[data-copy]").get_attribute("data-copy") or "")
    assert box["label"] == "green triangle"
    assert set(box) == {"label", "x0", "y0", "x1", "y1"}
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    screen.get_by_role("button", name="Copy boxes as JSON").click()
    page.wait_for_function("document.querySelector('.stage [data-copied]') !== null")
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == [box]


def test_pictures_and_boxes_survive_a_reload(page: Page, screen: Locator) -> None:
    ask_for_the_triangle(page, screen)
    page.reload()
    screen = open_tab(page, "image")
    expect(screen.locator(".stage .mark")).to_have_count(1)
    expect(page.locator("#transcript-image .attached img")).to_have_count(1)
    send(page, "image", "How many messages?")
    expect(answered(page, "image")).to_contain_text("first engine read 3")


def test_a_picture_can_be_pasted_dropped_and_removed(page: Page, screen: Locator) -> None:
    bag = page.evaluate_handle(
        """async () => {
            const canvas = Object.assign(document.createElement("canvas"), { width: 80, height: 60 });
            canvas.getContext("2d").fillRect(10, 10, 30, 30);
            const blob = await new Promise((resolve) => canvas.toBlob(resolve));
            const bag = new DataTransfer();
            bag.items.add(new File([blob], "pasted.png", { type: "image/png" }));
            return bag;
        }"""
    )
    page.evaluate("(bag) => dispatchEvent(new ClipboardEvent('paste', { clipboardData: bag, cancelable: true }))", bag)
    expect(screen.locator(".stage figure")).to_have_count(1)
    expect(screen.locator(".stage")).to_contain_text("80 × 60")
    screen.get_by_role("button", name="Remove").click()
    expect(screen.locator(".stage figure")).to_have_count(0)
    page.evaluate("(bag) => dispatchEvent(new DragEvent('drop', { dataTransfer: bag, cancelable: true }))", bag)
    expect(screen.locator(".stage figure")).to_have_count(1)


def dropped(page: Page, name: str, kind: str, content: bytes = b"") -> None:
    page.evaluate(
        """([name, type, bytes]) => {
            const bag = new DataTransfer();
            bag.items.add(new File([new Uint8Array(bytes)], name, { type }));
            dispatchEvent(new DragEvent("drop", { dataTransfer: bag, cancelable: true }));
        }""",
        [name, kind, list(content)],
    )


FOREIGN = {
    "x.svg": "SVG", "x.eps": "EPS", "x.psd": "PSD", "x.fits": "FITS", "x.heic": "HEIC", "x.jp2": "JPEG 2000",
    "x.pdf": "PDF",
}  # fmt: skip


def test_what_a_file_is_is_told_from_its_content_and_not_its_name(page: Page, screen: Locator) -> None:
    for name, kind in FOREIGN.items():
        file, words = HOSTILE[kind]
        upload(screen, name, file)
        page.locator(".toast-body", has_text=name).filter(has_text=words).wait_for()
    dropped(page, "dropped.pdf", "application/pdf", HOSTILE["PDF"][0])
    page.locator(".toast-body", has_text="dropped.pdf").filter(has_text="cannot be read").wait_for()
    expect(screen.locator(".stage figure")).to_have_count(0)
    upload(screen, "photo.jfif", UNUSUAL["turned"][0])
    expect(screen.locator(".stage figcaption")).to_contain_text("64 × 320")


def test_a_file_dropped_on_a_tab_without_pictures_leaves_the_page_where_it_is(page: Page) -> None:
    prevented = page.evaluate(
        """() => {
            const bag = new DataTransfer();
            bag.items.add(new File(["x"], "x.txt"));
            return !dispatchEvent(new DragEvent("drop", { dataTransfer: bag, cancelable: true }));
        }"""
    )
    assert prevented


def test_a_question_that_fails_comes_back_unless_something_else_is_typed_by_then(page: Page, screen: Locator) -> None:
    attach(screen, SHAPES)
    screen.get_by_text("goes with the next message").wait_for()
    box, failure = page.locator("#composer-image textarea"), page.locator("#transcript-image .failure")
    send(page, "image", "Break down.")
    failure.wait_for()
    expect(box).to_have_value("Break down.")
    expect(screen.locator(".stage")).to_contain_text("goes with the next message")
    page.reload()
    screen = open_tab(page, "image")
    expect(screen.locator(".stage")).to_contain_text("goes with the next message")
    with asking(page, "image"):
        send(page, "image", "Break down.")
    box.fill("half a thought")
    failure.wait_for()
    expect(screen.locator(".stage")).to_contain_text("goes with the next message")
    expect(box).to_have_value("half a thought")
    screen.get_by_role("button", name="Remove").click()
    expect(screen.locator(".stage figure")).to_have_count(0)


def test_what_is_attached_while_an_answer_is_written_waits_for_the_next(page: Page, screen: Locator) -> None:
    attach(screen, SHAPES)
    screen.get_by_text("goes with the next message").wait_for()
    with asking(page, "image"):
        send(page, "image", "Go on and on.")
    upload(screen, "next.png", drawn())
    expect(screen.locator(".stage figure")).to_have_count(2)
    page.locator("#composer-image .stop-button").click()
    answered(page, "image")
    expect(screen.locator(".stage figure").last).to_contain_text("goes with the next message")
    expect(screen.locator(".stage figure")).to_have_count(2)
    send(page, "image", "How many?")
    expect(page.locator("#transcript-image .bot-row").last).to_contain_text("read 3, saw 2")


def test_a_question_stopped_before_its_first_word_leaves_its_picture_to_the_next(page: Page, screen: Locator) -> None:
    attach(screen, SHAPES)
    screen.get_by_text("goes with the next message").wait_for()
    with asking(page, "image"):
        send(page, "image", "Break down.")
    page.locator("#composer-image .stop-button").click()
    expect(page.locator("#transcript-image .bot-row").last).to_contain_text("Stopped here.")
    send(page, "image", "How many?")
    expect(page.locator("#transcript-image .bot-row").last).to_contain_text("read 1, saw 1")


def test_the_same_picture_twice_is_shown_one_at_a_time(page: Page, screen: Locator) -> None:
    for n in range(2):
        upload(screen, f"{n}.png", drawn())
        screen.get_by_text("goes with the next message").wait_for()
        send(page, "image", "How many?")
        answered(page, "image")
        expect(screen.locator(".stage")).not_to_contain_text("goes with the next message")
    screen.locator(".stage nav button").first.click()
    expect(screen.locator(".stage figure:visible")).to_have_count(1)
    expect(screen.locator(".stage figure:visible")).to_contain_text("Picture 1")


def test_pictures_that_come_at_once_all_arrive(page: Page, screen: Locator) -> None:
    page.evaluate(
        """() => ["#f00", "#0f0", "#00f"].map(async (colour) => {
            const canvas = Object.assign(document.createElement("canvas"), { width: 80, height: 60 });
            const brush = canvas.getContext("2d");
            brush.fillStyle = colour;
            brush.fillRect(0, 0, 80, 60);
            const bag = new DataTransfer();
            const blob = await new Promise((done) => canvas.toBlob(done));
            bag.items.add(new File([blob], "pasted.png", { type: "image/png" }));
            dispatchEvent(new ClipboardEvent("paste", { clipboardData: bag, cancelable: true }));
        })"""
    )
    expect(screen.locator(".stage nav button")).to_have_count(3)


def test_sending_waits_for_a_picture_on_its_way(page: Page, screen: Locator) -> None:
    page.add_init_script(
        """const ask = window.fetch;
        window.fetch = async (...asked) => {
            if (String(asked[0]).endsWith("/upload")) await new Promise((go) => { window.letGo = go; });
            return ask(...asked);
        };"""
    )
    page.reload()
    open_tab(page, "image")
    box, button = page.locator("#composer-image textarea"), page.locator("#composer-image .submit-button")
    box.fill("Where is the green triangle?")
    attach(screen, SHAPES)
    page.wait_for_function("window.letGo !== undefined")
    expect(button).to_have_css("pointer-events", "none")
    box.press("Enter")
    button.press(" ")
    page.evaluate("window.letGo()")
    screen.get_by_text("goes with the next message").wait_for()
    expect(button).not_to_have_css("pointer-events", "none")
    box.press("Enter")
    answered(page, "image")
    expect(page.locator("#transcript-image .user-row")).to_have_count(1)
    expect(screen.locator(".stage .mark")).to_have_count(1)


def test_an_upload_that_breaks_off_holds_nothing_up(page: Page, screen: Locator) -> None:
    page.route("**/upload", lambda route: route.abort(), times=1)
    with page.expect_event("requestfailed"):
        attach(screen, SHAPES)
    expect(page.locator("body.bringing")).to_have_count(0)
    upload(screen, "another.png", drawn())
    screen.get_by_text("goes with the next message").wait_for()


def test_text_that_comes_with_a_picture_of_itself_is_pasted_as_text(page: Page, screen: Locator) -> None:
    """As a spreadsheet's cells do."""
    page.locator("#composer-image textarea").focus()
    taken = page.evaluate(
        """() => {
            const bag = new DataTransfer();
            bag.items.add(new File(["x"], "cells.png", { type: "image/png" }));
            bag.setData("text/plain", "1 2 3");
            const paste = new ClipboardEvent("paste", { clipboardData: bag, bubbles: true, cancelable: true });
            return !document.activeElement.dispatchEvent(paste);
        }"""
    )
    assert not taken


def test_boxes_are_copied_where_the_browser_keeps_its_clipboard(page: Page, screen: Locator) -> None:
    """As it does over plain http."""
    page.evaluate(
        """() => {
            Object.defineProperty(navigator, "clipboard", { value: undefined });
            addEventListener("copy", () => { window.copied = String(getSelection()) || document.activeElement.value; });
        }"""
    )
    ask_for_the_triangle(page, screen)
    screen.get_by_role("button", name="Copy boxes as JSON").click()
    page.wait_for_function("window.copied !== undefined")
    assert json.loads(page.evaluate("window.copied"))[0]["label"] == "green triangle"


def test_a_model_that_reads_text_only_says_so_and_everything_stays(page: Page, screen: Locator) -> None:
    attach(screen, SHAPES)
    screen.get_by_text("goes with the next message").wait_for()
    open_section(screen, "Model")
    screen.get_by_label("Model", exact=True).click()
    page.get_by_role("option").filter(has_text="Qwen2.5-Coder 0.5B").first.click()
    send(page, "image", "Where is the green triangle?")
    page.locator(".toast-body", has_text="reads text only; it cannot see pictures.").wait_for()
    expect(page.locator("#composer-image textarea")).to_have_value("Where is the green triangle?")
    expect(screen.locator(".stage")).to_contain_text("goes with the next message")


def test_a_photo_can_be_taken(page: Page, screen: Locator) -> None:
    """With the browser's own pretended camera."""
    screen.locator("button.camera").click()
    page.locator("dialog.photo").get_by_role("button", name="Take the photo").click()
    expect(screen.locator(".stage figure")).to_have_count(1)
    expect(screen.locator(".stage")).to_contain_text("640 × 480")
    expect(page.locator("dialog.photo")).to_have_count(0)
    screen.locator("button.camera").click()
    page.locator("dialog.photo").get_by_role("button", name="Close").click()
    expect(page.locator("dialog.photo")).to_have_count(0)


def test_a_camera_that_may_not_be_used_is_said(page: Page, screen: Locator) -> None:
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = async () => { throw new Error('denied'); }; }")
    screen.locator("button.camera").click()
    expect(page.locator("dialog.photo p")).to_be_visible()
    expect(page.locator("dialog.photo").get_by_role("button")).to_have_count(1)


def test_what_is_no_picture_is_said_and_the_others_stay(page: Page, screen: Locator, tmp_path: Path) -> None:
    fake = tmp_path / "notes.png"
    fake.write_text("<html>not a picture</html>")
    attach(screen, fake, SHAPES)
    page.locator(".toast-body", has_text="is not a picture").wait_for()
    expect(screen.locator(".stage figure")).to_have_count(1)


def upload(screen: Locator, name: str, file: bytes) -> None:
    payload: FilePayload = {"name": name, "mimeType": "application/octet-stream", "buffer": file}
    screen.locator("input[type=file]").set_input_files(payload)


def test_no_hostile_file_gets_in_and_everything_else_stays(page: Page, screen: Locator) -> None:
    attach(screen, SHAPES)
    screen.get_by_text("goes with the next message").wait_for()
    page.locator("#composer-image textarea").fill("Where is the green triangle?")
    for name, (file, words) in HOSTILE.items():
        upload(screen, f"{name}.png", file)
        page.locator(".toast-body", has_text=f"{name}.png").filter(has_text=words).wait_for()
    expect(screen.locator(".stage figure")).to_have_count(1)
    expect(page.locator("#composer-image textarea")).to_have_value("Where is the green triangle?")
    expect(page.locator("body.bringing")).to_have_count(0)
    page.locator("#composer-image textarea").press("Enter")
    answered(page, "image")
    expect(screen.locator(".stage .mark")).to_have_count(1)


@pytest.mark.parametrize("name", ["CMYK", "16 bit", "palette", "turned"])
def test_an_unusual_picture_is_shown_upright_in_its_size(screen: Locator, name: str) -> None:
    file, (width, height), _ = UNUSUAL[name]
    upload(screen, f"{name}.png", file)
    expect(screen.locator(".stage figcaption")).to_contain_text(f"{width} × {height}")


def test_one_picture_too_many_is_said_and_the_others_stay(page: Page, screen: Locator) -> None:
    payloads: list[FilePayload] = [
        {"name": f"{n}.png", "mimeType": "image/png", "buffer": drawn(32 + n, 32)} for n in range(MOST_PICTURES + 1)
    ]
    screen.locator("input[type=file]").set_input_files(payloads)
    page.locator(".toast-body", has_text=f"at most {MOST_PICTURES}").wait_for()
    expect(screen.locator(".stage nav button")).to_have_count(MOST_PICTURES)


def test_an_example_brings_its_picture_and_a_picture_alone_is_a_question(page: Page, screen: Locator) -> None:
    page.locator("#transcript-image .example", has_text="What is in the picture?").click()
    expect(screen.locator(".stage figure")).to_have_count(1)
    page.locator("#composer-image textarea").fill("")
    page.locator("#composer-image textarea").press("Enter")
    answered(page, "image")
    expect(page.locator("#transcript-image .user-row").last).to_contain_text("What is in the picture?")


def test_on_a_phone_the_picture_leaves_room_for_the_talk(page: Page) -> None:
    screen = open_tab(page, "image")
    page.set_viewport_size({"width": 390, "height": 844})
    screen.locator("input[type=file]").set_input_files(SHAPES)
    screen.get_by_text("goes with the next message").wait_for()
    talk, stage = page.locator("#transcript-image").bounding_box(), screen.locator(".stage").bounding_box()
    assert talk is not None
    assert stage is not None
    assert talk["height"] > 200
    assert stage["height"] > 200
    assert page.evaluate("document.scrollingElement.scrollHeight <= window.innerHeight")
