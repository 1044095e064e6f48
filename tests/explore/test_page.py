"""The explorer's page in headless Chromium: each view used as a person would, with assertions on pixels.

Needs the packages playwright and axe-playwright-python, and Chromium on the PATH; `.ci/run` installs them.
"""

import json
import shutil
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # as of the explorer

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on the PATH")
VIEWS = ("gallery", "mix", "edit", "photo", "drag", "walk")
PIXELS = """c => Array.from(c.getContext("2d").getImageData(0, 0, c.width, c.height).data)"""
DIALOG = "#keys"
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Person:
    """Somebody who uses the page."""

    def __init__(self, page, address):
        self.page, self.address, self.errors, self.pending = page, address, [], set()
        page.on("request", lambda request: self.pending.add(request))
        page.on("requestfinished", lambda request: self.pending.discard(request))
        page.on("requestfailed", lambda request: self.pending.discard(request))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.goto(address)
        page.wait_for_selector(".tile canvas[data-ready]", timeout=30000)

    def open(self, view):
        self.page.click(f"#tab-{view}")
        self.page.wait_for_selector(f"#view-{view}:not([hidden])")

    def pick(self, *seeds):
        self.open("gallery")
        for seed in seeds:
            self.page.click(f'.tile[data-item="{seed}"]')

    def pixels(self, selector):
        """[H, W, 4] of the first canvas, once it shows something."""
        self.page.wait_for_selector(f"{selector}[data-ready]", timeout=30000)
        self.settle()
        element = self.page.query_selector(selector)
        width, height = element.evaluate("c => [c.width, c.height]")
        return np.array(element.evaluate(PIXELS), np.uint8).reshape(height, width, 4).astype(int)

    def settle(self):
        """Wait until no request is on its way, nor follows."""
        quiet = 0
        for _ in range(600):
            self.page.wait_for_timeout(30)
            quiet = 0 if self.pending else quiet + 1
            if quiet > 3:
                return
        raise AssertionError("requests go on")

    def command(self):
        self.settle()
        return self.page.inner_text("#command code").split("\n")

    def slide(self, label, value):
        slider = self.page.get_by_label(label, exact=True).and_(self.page.locator("input[type=range]:visible"))
        slider.evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true}));"
            " e.dispatchEvent(new Event('change', {bubbles: true})); }",
            value,
        )
        self.settle()


@pytest.fixture
def person(browser, explorer):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    found = Person(context.new_page(), explorer.address)
    yield found
    context.close()
    assert found.errors == []


def frame(explorer, path, **body):
    return explorer.frames(path, **body)[0][0].astype(int)


def test_gallery_is_endless_and_follows_truncation(person, explorer):
    page = person.page
    first = person.pixels('.tile[data-item="3"] canvas')
    assert np.array_equal(first, frame(explorer, "/api/images", items=[3]))
    person.slide("Truncation", 0.5)
    assert "--trunc 0.5" in person.command()[0]
    assert np.array_equal(
        person.pixels('.tile[data-item="3"] canvas'), frame(explorer, "/api/images", items=[3], trunc=0.5)
    )
    for _ in range(12):
        page.mouse.move(600, 400)
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(150)
    assert page.locator(".tile").count() > 150
    full = page.locator(".chunk.full").count()
    assert full < page.locator(".chunk").count()  # those far away hold no images
    page.evaluate("document.querySelector('main').scrollTo(0, 0)")
    page.wait_for_timeout(300)
    assert person.pixels('.tile[data-item="3"] canvas').shape == (32, 32, 4)


def test_picks_and_favorites(person):
    page = person.page
    person.pick(1, 4)
    assert page.locator("#tray li").count() == 2
    assert page.get_attribute('.tile[data-item="4"]', "aria-pressed") == "true"
    person.pick(4)  # again: no longer
    assert page.locator("#tray li").count() == 1
    page.hover('.cell:has(.tile[data-item="7"])')
    page.click('.cell:has(.tile[data-item="7"]) .star')
    page.wait_for_timeout(300)  # the address follows
    page.reload()
    page.wait_for_selector(".tile canvas[data-ready]")
    assert page.locator("#tray li").count() == 1  # picks are in the address
    page.click("text=Favorites")
    page.wait_for_timeout(200)
    assert [element.get_attribute("data-item") for element in page.query_selector_all(".tile")] == ["7"]


def test_a_shared_link_shows_the_same(person, browser, explorer):
    person.pick(2, 6)
    person.slide("Truncation", 0.7)
    person.open("mix")
    person.page.click('button.layer[data-layer="0"][data-place="1"]')
    shown = person.pixels(".mix .result")
    person.page.wait_for_timeout(300)  # the address follows
    other = browser.new_page()
    other.goto(person.page.url)
    other.wait_for_selector(".mix .result[data-ready]")
    other.wait_for_timeout(500)
    found = np.array(other.query_selector(".mix .result").evaluate(PIXELS)).reshape(32, 32, 4)
    assert np.array_equal(found, shown)
    other.close()


def test_mixing_by_layer(person, explorer):
    page = person.page
    person.pick(1, 2, 5)
    person.open("mix")
    before = person.pixels(".mix .result")
    assert np.array_equal(before, frame(explorer, "/api/images", items=[1]))
    cells = [page.query_selector(f'button.layer[data-layer="{i}"][data-place="1"]').bounding_box() for i in (0, 2)]
    page.mouse.move(cells[0]["x"] + 9, cells[0]["y"] + 9)
    page.mouse.down()
    page.mouse.move(cells[1]["x"] + 9, cells[1]["y"] + 9, steps=8)  # three layers in one motion
    page.mouse.up()
    donors = [{"item": 2, "layers": [0, 1, 2]}]
    assert np.array_equal(person.pixels(".mix .result"), frame(explorer, "/api/mix", base=1, donors=donors))
    page.get_by_label("All fine layers from Seed 5").click()
    donors.append({"item": 5, "layers": [5, 6, 7]})
    person.slide("Blend", 0.5)
    mixed = person.pixels(".mix .result")
    assert np.array_equal(mixed, frame(explorer, "/api/mix", base=1, donors=donors, blend=0.5))
    assert [line.split()[1] for line in person.command()] == ["mix", "mix"]
    page.click(".mix >> text=Keep")
    page.wait_for_selector('#tray li:has-text("mix-")')
    person.settle()
    page.keyboard.press("Control+z")  # the pick
    page.keyboard.press("Control+z")  # the blend
    person.settle()
    assert np.array_equal(person.pixels(".mix .result"), frame(explorer, "/api/mix", base=1, donors=donors))
    page.keyboard.press("Control+Shift+z")
    assert np.array_equal(person.pixels(".mix .result"), mixed)


def test_mixing_in_a_grid(person, explorer):
    person.pick(1, 2, 5)
    person.open("mix")
    person.page.click("text=Rows and columns")
    person.page.wait_for_selector(".matrix canvas")
    person.settle()
    labels = [c.get_attribute("aria-label") for c in person.page.query_selector_all(".matrix canvas")]
    assert labels == ["Seed 5, column", "Seed 1, row", "Seed 1 with Seed 5", "Seed 2, row", "Seed 2 with Seed 5"]
    person.page.get_by_label("Seed 2: column").click()
    person.page.wait_for_selector('[aria-label="Seed 1 with Seed 2"]')
    assert "--rows 1 --cols 2,5" in person.command()[0]


def test_editing(person, explorer):
    page = person.page
    person.pick(3)
    person.open("edit")
    page.get_by_label("Number of directions").fill("4")
    page.get_by_role("button", name="Find", exact=True).click()
    page.wait_for_selector(".sliders input", timeout=30000)
    assert page.locator(".sliders input").count() == 4
    before = person.pixels(".edit .result")
    person.slide("pca1", 3)
    file = explorer.get("/api/directions")["files"][0]["file"]
    edits = [{"file": file, "index": 1, "strength": 3}]
    assert np.array_equal(person.pixels(".edit .result"), frame(explorer, "/api/edit", item=3, edits=edits))
    page.get_by_role("button", name="fine", exact=True).click()  # off
    edited = person.pixels(".edit .result")
    layers = [0, 1, 2, 3, 4]
    assert np.array_equal(edited, frame(explorer, "/api/edit", item=3, edits=edits, layers=layers))
    assert "--layers 0-4" in person.command()[0]
    page.hover("text=Before")
    page.mouse.down()
    assert np.array_equal(person.pixels(".edit .result"), before)
    page.mouse.up()
    assert np.array_equal(person.pixels(".edit .result"), edited)
    page.get_by_label("pca1", exact=True).and_(page.locator("input[type=range]")).dblclick()
    assert np.array_equal(person.pixels(".edit .result"), before)


def test_a_moving_slider_never_waits_for_stale_frames(person, explorer):
    person.pick(3)
    person.open("edit")
    person.page.wait_for_selector(".sliders input, .sliders .empty")
    if not person.page.query_selector(".sliders input"):
        person.page.get_by_role("button", name="Find", exact=True).click()
    person.page.wait_for_selector(".sliders input", timeout=30000)
    sent = []
    person.page.on("request", lambda request: sent.append(request) if "/api/edit" in request.url else None)
    person.page.evaluate(
        """async () => {
            const slider = document.querySelector(".sliders input");
            for (let i = 0; i < 200; i++) {
                slider.value = -3 + i * 0.03;
                slider.dispatchEvent(new Event("input", {bubbles: true}));
                if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
            }
        }"""
    )
    person.settle()
    last = json.loads(sent[-1].post_data)["edits"][0]
    assert last["strength"] == pytest.approx(2.97, abs=0.2) and len(sent) < 150
    assert np.array_equal(person.pixels(".edit .result"), frame(explorer, "/api/edit", item=3, edits=[last]))


def test_a_photo(person, explorer, tmp_path):
    page = person.page
    image = frame(explorer, "/api/images", items=[14])[..., :3].astype(np.uint8)
    photo = tmp_path / "photo.jpg"
    Image.fromarray(image).resize((96, 96), Image.Resampling.BICUBIC).save(photo, quality=95)
    person.open("photo")
    page.set_input_files("input[type=file]", photo)
    page.wait_for_selector("text=encoder, PSNR", timeout=30000)
    canvases = page.query_selector_all(".pair canvas")
    target, encoded = (np.array(c.evaluate(PIXELS)).reshape(32, 32, 4)[..., :3] for c in canvases)
    assert abs(target - image).mean() < 8 and abs(encoded - image).mean() < 20
    page.get_by_label("Steps").fill("80")
    page.get_by_role("button", name="Project").click()
    page.wait_for_selector("#live >> text=/steps [2-6][0-9] of 80/", timeout=60000, state="attached")
    page.wait_for_selector("text=projection, PSNR", timeout=60000)
    found = np.array(canvases[1].evaluate(PIXELS)).reshape(32, 32, 4)[..., :3]
    assert abs(found - target).mean() < abs(encoded - target).mean()
    assert page.locator("#tray li").count() >= 1


def test_a_projection_can_be_canceled_and_stopped(person, explorer, tmp_path):
    page = person.page
    photo = tmp_path / "photo.png"
    Image.fromarray(frame(explorer, "/api/images", items=[15])[..., :3].astype(np.uint8)).save(photo)
    person.open("photo")
    page.set_input_files("input[type=file]", photo)
    page.wait_for_selector("text=encoder, PSNR", timeout=30000)
    folders = {path.name for path in explorer.out.iterdir() if path.is_dir()}
    page.get_by_label("Steps").fill("2000")
    page.get_by_role("button", name="Project").click()
    page.wait_for_selector(".photo .progress >> text=/steps [1-9]/", timeout=30000)
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector(".photo .progress", state="hidden")
    assert {path.name for path in explorer.out.iterdir() if path.is_dir()} == folders  # nothing is kept
    page.get_by_role("button", name="Project").click()
    page.wait_for_selector(".photo .progress >> text=/steps [1-9]/", timeout=30000)
    page.get_by_role("button", name="Stop and keep").click()
    page.wait_for_selector("text=projection, PSNR", timeout=30000)
    kept = {path.name for path in explorer.out.iterdir() if path.is_dir()} - folders
    assert len(kept) == 1 and (explorer.out / kept.pop() / "projected.npz").is_file()


def test_a_generated_image_restores_its_settings(person, explorer, sgan, tmp_path):
    sgan("generate", "--model", MODEL, "--seeds", 77, "--trunc", 0.6, "--outdir", tmp_path, "-q")
    person.open("photo")
    person.page.set_input_files("input[type=file]", tmp_path / "seed0077.png")
    person.page.click("text=Restore seed and settings")
    person.page.wait_for_selector("#view-gallery:not([hidden])")
    assert "--seeds 77" in person.command()[0] and "--trunc 0.6" in person.command()[0]


def test_a_file_that_is_not_an_image(person, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    person.open("photo")
    person.page.set_input_files("input[type=file]", tmp_path / "notes.txt")
    person.page.wait_for_selector("#messages >> text=cannot be read")
    assert person.page.locator("#tray li").count() == 0 and not person.page.is_visible(".pair")
    person.errors.clear()  # the browser's own line about the status


def test_dragging(person, explorer):
    page = person.page
    person.pick(1)
    person.open("drag")
    before = person.pixels(".drag .result")
    box = page.query_selector(".overlay").bounding_box()

    def at(x, y):
        return box["x"] + box["width"] * x, box["y"] + box["height"] * y

    page.mouse.move(*at(0.5, 0.38))
    page.mouse.down()
    page.mouse.move(*at(0.5, 0.22), steps=5)
    page.mouse.up()
    handle = [page.get_by_label(f"Point 1: {name}", exact=True).input_value() for name in ("x", "y", "target y")]
    assert [float(x) for x in handle] == pytest.approx([16, 12.2, 7], abs=0.4)
    page.get_by_label("Steps").fill("60")
    page.get_by_role("button", name="Start").click()
    page.wait_for_selector("#tray li:has-text('drag-')", timeout=60000)
    after = person.pixels(".drag .result")
    assert abs(after - before).mean() > 2
    assert float(page.get_by_label("Point 1: y", exact=True).input_value()) < 11
    page.get_by_role("button", name="Undo drag").click()
    assert np.array_equal(person.pixels(".drag .result"), before)


def test_dragging_with_a_mask_and_the_keyboard(person, explorer):
    page = person.page
    person.pick(1)
    person.open("drag")
    before = person.pixels(".drag .result")
    page.get_by_role("button", name="Add a point").click()
    page.get_by_label("Handle 1 at").focus()
    for _ in range(8):
        page.keyboard.press("ArrowUp")
    assert float(page.get_by_label("Point 1: y", exact=True).input_value()) == 12
    page.get_by_role("button", name="Mask", exact=True).click()
    person.slide("Brush", 10)
    box = page.query_selector(".overlay").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.25, steps=10)
    page.mouse.up()
    veil = np.array(page.query_selector("canvas.veil").evaluate(PIXELS)).reshape(32, 32, 4)[..., 3]
    assert veil[8, 16] == 0 and veil[28, 16] > 0
    page.get_by_label("Steps").fill("40")
    page.get_by_role("button", name="Start").click()
    page.wait_for_selector("#tray li:has-text('drag-')", timeout=60000)
    change = abs(person.pixels(".drag .result") - before)[..., :3].mean(2)
    assert change[veil > 0].mean() < 10
    assert "--mask" in person.page.inner_text("#command code")


def test_clicks_set_a_handle_and_its_target(person):
    page = person.page
    person.pick(1)
    person.open("drag")
    person.pixels(".drag .result")
    box = page.query_selector(".overlay").bounding_box()

    def click(x, y):
        page.mouse.click(box["x"] + box["width"] * x / 32, box["y"] + box["height"] * y / 32)

    def points():
        rows = [li.query_selector_all("input") for li in page.query_selector_all(".points li")]
        return [[float(field.input_value()) for field in row] for row in rows]

    click(8, 8)
    assert len(points()) == 1
    click(8, 16)
    assert np.allclose(points(), [[8, 8, 8, 16]], atol=0.2)
    click(8, 16)  # takes the target, and sets none
    click(24, 8)
    page.keyboard.press("Escape")
    click(24, 20)  # a handle of its own
    click(24, 28)
    assert np.allclose(points(), [[8, 8, 8, 16], [24, 8, 24, 8], [24, 20, 24, 28]], atol=0.2)
    page.keyboard.press("ArrowRight")  # moves what was pressed last
    page.keyboard.press("ArrowRight")
    assert np.allclose(points()[2], [24, 20, 25, 28], atol=0.2)
    page.keyboard.press("Delete")
    assert len(points()) == 2


def test_a_walk_plays_and_is_exported(person, explorer):
    page = person.page
    person.pick(1, 2, 3)
    person.open("walk")
    page.get_by_label("Frames from key to key").fill("6")
    page.keyboard.press("Tab")
    first = person.pixels(".walk .result")
    assert np.array_equal(first, frame(explorer, "/api/walk", keys=[1, 2, 3], frames=6))
    person.slide("Frame", 9)
    ninth = person.pixels(".walk .result")
    assert np.array_equal(ninth, frame(explorer, "/api/walk", keys=[1, 2, 3], frames=6, index=9))
    page.get_by_role("button", name="Play").click()
    page.wait_for_timeout(330)
    page.get_by_role("button", name="Pause").click()
    assert page.locator(".walk figcaption").inner_text() != "Frame 10 of 18, 0.6 s"
    page.get_by_label("Seed 3: earlier").click()
    assert "--seeds 1,3,2" in person.command()[0]
    with page.expect_download() as waiting:
        page.get_by_role("button", name="GIF").click()
    with Image.open(BytesIO(Path(waiting.value.path()).read_bytes())) as video:
        assert video.n_frames == 18


def test_moving_images(browser, start_explorer, moving_generator, tmp_path):
    from stylegan_cli.snapshot import SnapshotInfo, save_snapshot

    G = moving_generator(16, 128, 8)
    save_snapshot(tmp_path / "moving.safetensors", G, None, SnapshotInfo(G.config))
    explorer = start_explorer(tmp_path, "--model", tmp_path / "moving.safetensors", "--port", 9500)
    try:
        person = Person(browser.new_page(), explorer.address)
        person.pick(1)
        person.open("move")
        before = person.pixels(".move .result")
        box = person.page.query_selector(".move .result").bounding_box()
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        person.page.mouse.move(*middle)
        person.page.mouse.down()
        person.page.mouse.move(middle[0] + box["width"] / 4, middle[1], steps=5)
        person.page.mouse.up()
        moved = person.pixels(".move .result")
        assert not np.array_equal(moved, before)
        assert "--translate 0.25,0" in person.command()[0]
        person.slide("Rotation", 30)
        assert "--rotate 30" in person.command()[0]
        person.page.get_by_role("button", name="Reset").click()
        assert np.array_equal(person.pixels(".move .result"), before)
        assert person.errors == []
    finally:
        explorer.stop()


def test_the_snapshots_of_a_run(browser, start_explorer, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "00000-copy")
    explorer = start_explorer(tmp_path, "--model", run, "--port", 9520)
    try:
        person = Person(browser.new_page(), explorer.address)
        person.open("training")
        newest = person.pixels(".training canvas")
        names = [snapshot["name"] for snapshot in explorer.get("/api/snapshots")["snapshots"]]
        person.slide("Snapshot", 0)
        oldest = person.pixels(".training canvas")
        assert not np.array_equal(newest, oldest)
        wanted = frame(explorer, "/api/images", items=[0], snapshot=names[0])
        visible = wanted[..., 3] > 64  # a canvas rounds colors that are nearly transparent
        assert visible.any() and abs(oldest - wanted)[visible].max() <= 4
        shutil.copy(run / names[0], run / "snapshot-000009.safetensors")  # while it trains
        person.page.wait_for_selector(f"text=of {len(names) + 1}", timeout=15000)
        assert person.errors == []
    finally:
        explorer.stop()


@pytest.mark.parametrize(("width", "density"), [(1280, 1), (1111, 1), (390, 2), (390, 3), (320, 2)])
def test_pixels_of_small_images_have_equal_sizes(browser, explorer, width, density):
    context = browser.new_context(viewport={"width": width, "height": 800}, device_scale_factor=density)
    person = Person(context.new_page(), explorer.address)
    person.pick(1, 2)
    sizes = {".tile canvas": person.page.query_selector('.tile[data-item="1"] canvas').bounding_box()["width"]}
    for view in ("mix", "edit", "drag", "walk"):
        person.open(view)
        person.pixels(f".{view} .result")
        sizes[view] = person.page.query_selector(f".{view} .result").bounding_box()["width"]
    context.close()
    assert all(round(size * density, 1) % 32 == 0 and size * density >= 64 for size in sizes.values()), sizes


def test_on_a_phone_the_image_stays_in_sight(person):
    page = person.page
    page.set_viewport_size({"width": 390, "height": 700})
    person.pick(1, 2, 3)
    for view in ("mix", "walk"):
        person.open(view)
        person.pixels(f".{view} .result")
        page.evaluate("document.getElementById('main').scrollTop = 1e6")
        box, main = (page.query_selector(s).bounding_box() for s in (f".{view} .result", "#main"))
        assert box["y"] >= main["y"] - 1 and box["y"] + box["height"] <= main["y"] + main["height"]


def test_each_view_keeps_its_place(person):
    page = person.page
    page.wait_for_selector('.tile[data-item="80"] canvas[data-ready]')  # below what is in sight
    main = page.query_selector("main")
    main.evaluate("m => { m.scrollTop = 300; }")
    person.settle()
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    for view, place in (("walk", 0), ("gallery", 300)):
        person.open(view)
        person.settle()
        assert main.evaluate("m => m.scrollTop") == place
    assert not [url for url in sent if url.endswith("/api/images")]  # the gallery has kept its images


def test_the_track_of_a_slider_is_filled_from_its_neutral_value(person):
    for value, low, high in ((0.25, 50, 80), (1.5, 80, 100), (1, 80, 80)):
        person.slide("Truncation", value)
        slider = person.page.get_by_label("Truncation", exact=True).and_(person.page.locator("input"))
        style = slider.get_attribute("style")
        found = dict(part.strip().split(": ") for part in style.split(";") if part.strip())
        assert [float(found[name].rstrip("%")) for name in ("--low", "--high")] == pytest.approx([low, high])


@pytest.mark.parametrize("size", [(1280, 800), (390, 844), (320, 640)])
def test_nothing_is_wider_than_the_window(person, size):
    person.pick(1, 2, 3)
    person.page.set_viewport_size({"width": size[0], "height": size[1]})
    for view in VIEWS:
        person.open(view)
        person.settle()
        assert person.page.evaluate("document.documentElement.scrollWidth") <= size[0]
        main = person.page.query_selector("main")
        assert main.evaluate("m => m.scrollWidth <= m.clientWidth"), view


@pytest.mark.skipif(not find_spec("axe_playwright_python"), reason="axe-playwright-python is not installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(person, scheme):
    from axe_playwright_python.sync_playwright import Axe

    person.page.emulate_media(color_scheme=scheme)
    for view in VIEWS:  # empty, and with images
        person.open(view)
    person.pick(1, 2, 3)
    for view in VIEWS:
        person.open(view)
        person.settle()
        found = Axe().run(person.page).response["violations"]
        serious = {v["id"]: [n["html"][:200] for n in v["nodes"]][:3] for v in found if v["impact"] in SERIOUS}
        assert not serious, view


def test_the_keyboard_alone(person):
    page = person.page
    page.keyboard.press("?")
    page.wait_for_selector(f"{DIALOG}[open]")
    page.keyboard.press("Escape")
    page.focus('.tile[data-item="0"]')
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.keyboard.press("f")
    assert page.get_attribute('.tile[data-item="1"]', "aria-pressed") == "true"
    page.keyboard.press("2")
    page.wait_for_selector("#view-mix:not([hidden])")
    page.focus("#tab-mix")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#view-edit:not([hidden])")


def test_without_a_token(browser, explorer):
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{explorer.port}/")
    page.wait_for_selector("text=Open the address that `sgan explore` printed.")
    assert page.query_selector(".tile") is None and page.query_selector("#tabs button") is None
    page.close()


def test_a_server_that_has_stopped(browser, start_explorer, tmp_path):
    explorer = start_explorer(tmp_path, "--port", 9540)
    person = Person(browser.new_page(), explorer.address)
    explorer.stop()
    person.page.get_by_role("button", name="Random").click()
    person.page.wait_for_selector("#messages >> text=The server has stopped.")
