"""The page in Debian's Chromium, from disk: it loads nothing, and mouse, keys and touch do what the page says.

Skipped where Selenium (`pip install selenium`) or Chromium (`apt install chromium chromium-driver`) is missing.
"""

import shutil

import numpy as np
import pytest

from guided_diffusion.pet.orientation import turned
from guided_diffusion.report.packing import Packing
from guided_diffusion.report.run_page import write_run_page
from tests.report_runs import KEPT, LOST, SHAPE, manifest, run

webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
wait = pytest.importorskip("selenium.webdriver.support.wait", reason="Selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed"),
]
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
BACK, LEFT, HEAD = SHAPE[1], SHAPE[0], SHAPE[2]  # voxels along the axes of the viewer
BOX = "const box = arguments[0].getBoundingClientRect(); return [box.x, box.y, box.width, box.height]"
SLIDE = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"


@pytest.fixture(scope="module")
def scan():
    return run(realisations=3)


@pytest.fixture(scope="module")
def address(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_run_page(path, scan, manifest(scan, 3))
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, address):
    return Page(browser, address, 1440)


class Page:
    """The report in a window of some width."""

    def __init__(self, browser, address, width):
        self.browser = browser
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 600})
        browser.get(address)
        self.wait("return document.documentElement.dataset.state == 'ready' && viewer.dataset.cross !== undefined")

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def wait(self, condition):
        wait.WebDriverWait(self.browser, 20).until(lambda _: self.script(condition))

    def settle(self):
        """Two frames, after which everything is drawn."""
        self.browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    @property
    def cross(self):
        self.settle()
        return tuple(map(int, self.script("return viewer.dataset.cross").split(",")))

    @property
    def window(self):
        self.settle()
        return tuple(map(float, self.script("return viewer.dataset.window").split(",")))

    def canvas(self, plane, volume=0):
        return self.browser.find_element("css selector", f"canvas[data-plane={plane}][data-volume='{volume}']")

    def point(self, plane, x, y, volume=0):
        """Window coordinates of a point given in shares of a slice's picture, scrolled into view."""
        canvas = self.canvas(plane, volume)
        self.script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        box = self.script(BOX, canvas)
        return {"x": box[0] + x * box[2], "y": box[1] + y * box[3]}

    def mouse(self, kind, where, **more):
        self.browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **where, **more})

    def click(self, where):
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, where, button="left", clickCount=1)

    def drag(self, where, right, down, button="left", modifiers=0):
        end = {"x": where["x"] + right, "y": where["y"] + down}
        how = {"button": button, "buttons": 2 if button == "right" else 1, "modifiers": modifiers, "clickCount": 1}
        self.mouse("mousePressed", where, **how)
        self.mouse("mouseMoved", end, **how)
        self.mouse("mouseReleased", end, **how)

    def keys(self, *keys):
        for key in keys:
            webdriver.ActionChains(self.browser).send_keys(key).perform()

    def slide(self, selector, value):
        self.script(SLIDE, self.browser.find_element("css selector", selector), value)

    def value(self, kind, volume):
        self.settle()
        return self.browser.find_element("css selector", f"[data-{kind}-value='{volume}']").get_attribute("textContent")

    def pixels(self, plane, volume=0):
        """Red, green, blue of a slice's picture at its own resolution."""
        self.settle()
        text = """const c = arguments[0];
            return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"""
        width, height, data = self.script(text, self.canvas(plane, volume))
        return np.array(data).reshape(height, width, 4)[..., :3]


def stored(scan):
    """The volumes as the viewer has their axes."""
    volumes = (scan.scan, scan.denoised, scan.uncertainty, scan.reference)
    return [turned(volume).data for volume in volumes]


def test_nothing_is_requested_and_nothing_fails(browser, address):
    browser.get_log("browser"), browser.get_log("performance")
    Page(browser, address, 1440)
    assert browser.get_log("browser") == []
    messages = [entry["message"] for entry in browser.get_log("performance")]
    sent = [text for text in messages if '"Network.requestWillBeSent"' in text]
    assert [text for text in sent if address not in text and '"url":"data:' not in text] == []
    assert any(address in text for text in sent)


def test_suv_under_cross_hair_and_pointer_is_the_volumes(page, scan):
    rng = np.random.default_rng(0)
    for _ in range(5):
        place = tuple(int(rng.integers(n)) for n in (BACK, LEFT, HEAD))
        i, j, k = place
        page.click(page.point("axial", (j + 0.5) / LEFT, (i + 0.5) / BACK))
        page.click(page.point("coronal", (j + 0.5) / LEFT, 1 - (k + 0.5) / HEAD))
        assert page.cross == place
        for number, data in enumerate(stored(scan)):
            error = Packing(1, 0.002).largest_error(float(data[place])) + 0.0006  # three decimals are shown
            assert float(page.value("cross", number)) == pytest.approx(float(data[place]), abs=error)
            assert float(page.value("pointer", number)) == pytest.approx(float(data[place]), abs=error)


def test_a_click_moves_the_cross_hair_of_all_planes(page):
    before = page.cross
    page.click(page.point("sagittal", 10.5 / BACK, 1 - 7.5 / HEAD, volume=1))
    assert page.cross == (10, before[1], 7)
    shown = [page.pixels(plane, 3).copy() for plane in ("coronal", "axial")]
    page.click(page.point("sagittal", 20.5 / BACK, 1 - 30.5 / HEAD))
    assert page.cross == (20, before[1], 30)
    for plane, old in zip(("coronal", "axial"), shown, strict=True):
        assert (page.pixels(plane, 3) != old).any()


def test_the_wheel_scrolls_slices(page):
    i, j, k = page.cross
    for plane, moved in (("axial", (i, j, k + 1)), ("coronal", (i + 1, j, k + 1)), ("sagittal", (i + 1, j + 1, k + 1))):
        page.mouse("mouseWheel", page.point(plane, 0.5, 0.5), deltaX=0, deltaY=100)
        page.wait(f"return viewer.dataset.cross == '{','.join(map(str, moved))}'")


def test_windows_by_preset_number_and_drag(page):
    bright = page.pixels("coronal").mean()
    page.browser.find_element("css selector", "[data-preset='20']").click()
    assert page.window == (0, 20)
    assert page.pixels("coronal").mean() > bright + 1
    page.drag(page.point("axial", 0.5, 0.5), 0, -100, button="right")
    assert page.window == pytest.approx((0, 18))
    page.drag(page.point("axial", 0.5, 0.5), 50, 100, modifiers=8)  # Shift
    assert page.window == pytest.approx((1, 20))
    cross = page.cross
    upper = page.browser.find_elements("css selector", "[data-edge]")[1]
    upper.send_keys(webdriver.Keys.CONTROL + "a")
    upper.send_keys("3", webdriver.Keys.TAB)
    assert page.window == (1, 3)
    assert page.cross == cross


def test_the_difference_is_red_where_the_result_is_higher_and_blue_where_lower(page):
    lost = BACK - 1 - LOST[1], LOST[0], LOST[2]
    page.browser.find_element("css selector", "[data-difference]").click()
    page.click(page.point("axial", (lost[1] + 0.5) / LEFT, (lost[0] + 0.5) / BACK))
    page.slide("[data-axis='2']", lost[2])
    assert page.cross == lost
    page.click(page.point("axial", 0.05, 0.05))  # the cross-hair out of the way
    page.slide("[data-axis='2']", lost[2])
    grey, coloured = page.pixels("axial", 0), page.pixels("axial", 1)
    shares = (lost[0] + 0.5) / BACK, (lost[1] + 0.5) / LEFT
    row, column = (int(share * length) for share, length in zip(shares, grey.shape[:2], strict=True))
    assert coloured[row, column, 2] > coloured[row, column, 0] + 80
    assert np.ptp(grey[row, column]) == 0
    page.keys("d")
    assert np.ptp(page.pixels("axial", 1)[row, column]) == 0


def test_a_link_goes_to_its_focus(page):
    kept = BACK - 1 - KEPT[1], KEPT[0], KEPT[2]
    links = page.browser.find_elements("css selector", "[data-place]")
    places = [tuple(map(int, link.get_attribute("data-place").split(","))) for link in links]
    (number,) = [n for n, place in enumerate(places) if place == kept][:1]
    links[number].click()
    assert page.cross == kept
    assert float(page.value("cross", 1)) > 4
    assert links[number].get_attribute("aria-current") == "location"
    page.keys("n")
    assert page.cross == places[number + 1]
    page.keys("p", "p")
    assert page.cross == places[number - 1]


def test_the_keyboard_alone_suffices(page):
    """From the top of the page to a slice by Tab, then everything by keys."""
    keys = webdriver.Keys
    for _ in range(80):
        page.keys(keys.TAB)
        if page.script("return document.activeElement.dataset.plane") == "coronal":
            break
    assert page.script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    i, j, k = page.cross
    page.keys(keys.ARROW_RIGHT, keys.ARROW_UP, keys.PAGE_DOWN)
    assert page.cross == (i + 1, j + 1, k + 1)
    page.keys(keys.ARROW_LEFT, keys.ARROW_DOWN, keys.PAGE_UP)
    assert page.cross == (i, j, k)
    webdriver.ActionChains(page.browser).key_down(keys.SHIFT).send_keys(keys.PAGE_DOWN).key_up(keys.SHIFT).perform()
    assert page.cross == (i + 10, j, k)
    page.keys("2")
    assert page.window == (0, 5)
    page.keys("+", "+", "-")
    assert page.window == (0, 5.5)
    visible = "return [...document.querySelectorAll('[data-panel]')].map((panel) => !panel.hidden)"
    assert page.script(visible) == [True] * 4
    page.keys("f")
    page.settle()
    assert page.script(visible) == [False, True, False, False]
    page.browser.find_element("css selector", "[data-show='3']").send_keys(keys.ENTER)
    page.keys("f")
    page.settle()
    assert page.script(visible) == [True, False, False, False]
    page.keys("s")
    page.settle()
    assert page.script(visible) == [True] * 4


def test_keys_work_where_the_slice_with_the_focus_is_hidden(page):
    """The same plane of the volume that is shown gets the focus, flicker by flicker."""
    focus = "return [document.activeElement.dataset.plane, document.activeElement.dataset.volume]"
    page.script("arguments[0].focus()", page.canvas("axial", volume=0))
    for volume in ("1", "2", "3", "0"):
        page.keys("f")
        page.settle()
        assert page.script(focus) == ["axial", volume]
    i, j, k = page.cross
    page.keys(webdriver.Keys.PAGE_DOWN)
    assert page.cross == (i, j, k + 1)
    page.keys("s", "s")
    page.settle()
    assert page.script(focus) == ["axial", "0"]


def test_capital_letters_are_the_keys_that_the_page_shows(page):
    page.script("arguments[0].focus()", page.canvas("axial", volume=1))
    difference = "return document.querySelector('[data-difference]').checked"
    page.keys("D")
    page.settle()
    assert page.script(difference)
    page.keys("S")
    page.settle()
    assert page.script("return document.querySelectorAll('[data-panel][hidden]').length") == 3


def test_projections_turn(page):
    section = page.browser.find_element("id", "rotation")
    image = section.find_element("css selector", "img")
    first = image.get_attribute("src")
    page.slide("#rotation input", 5)
    assert image.get_attribute("src") != first
    page.slide("#rotation input", 12)  # from behind: the mirror image
    assert image.get_attribute("src") == first
    assert "mirrored" in image.get_attribute("class")
    assert section.find_element("css selector", "output").text == "180°"


def test_a_narrow_screen_and_touch(browser, address):
    page = Page(browser, address, 400)
    assert page.script("return document.documentElement.scrollWidth") <= 400
    k = page.cross[2]

    def touch(kind, *points):
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

    where = page.point("axial", 10.5 / LEFT, 20.5 / BACK)
    touch("touchStart", where), touch("touchEnd")
    assert page.cross == (20, 10, k)
    where = page.point("axial", 0.3, 0.5)
    touch("touchStart", where)
    for moved in (10, 20, 30):
        touch("touchMove", {"x": where["x"] + moved, "y": where["y"]})
    touch("touchEnd")
    assert page.cross == (20, 10, k + 5)
