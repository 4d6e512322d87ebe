"""The page in a real browser: what a person sees, clicks and hears of it. Debian's `chromium` and `chromium-driver`."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import PHOTOGRAPHS, serve, wait_until

from centerdet import Detector
from centerdet.text import plural

pytestmark = pytest.mark.soak
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NETWORK = {"goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
ASTRONAUT = PHOTOGRAPHS / "astronaut.png"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("voc", device="cpu")


@pytest.fixture(scope="module")
def url(detector: Detector) -> Iterator[str]:
    with serve(detector, model="voc", local=True) as address:
        yield address


class Page:
    """A browser on the page, by what a person would name."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def __getitem__(self, name: str) -> Any:
        return self.browser.find_element("id", name)

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def open(self, path: Path, expected: str = "object") -> None:
        self["file"].send_keys(str(path))
        wait_until(lambda: expected in self["status"].text)

    def set_threshold(self, value: float) -> None:
        self.run(
            "const s = arguments[0]; s.value = arguments[1]; s.dispatchEvent(new Event('input'))",
            self["threshold"],
            value,
        )

    def rows(self) -> list[list[str]]:
        script = "return [...document.querySelectorAll('#objects tr')].map(r => [...r.cells].map(c => c.textContent))"
        return [list(row) for row in self.run(script)]

    def requests(self) -> list[str]:
        """Addresses that the page has asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        sent = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        return [address for address in sent if not address.startswith(("data:", "blob:"))]

    def pixels(self) -> "np.ndarray[Any, Any]":
        """The canvas as the page draws it."""
        content = self.run("return document.getElementById('canvas').toDataURL()").partition(",")[2]
        return np.array(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


@pytest.fixture
def page(url: str, tmp_path: Path) -> Iterator[Page]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    words = (
        "headless=new no-sandbox disable-dev-shm-usage disable-gpu window-size=1200,900 disable-background-networking"
    )
    words += " use-fake-device-for-media-stream use-fake-ui-for-media-stream"
    for word in words.split():
        options.add_argument(f"--{word}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    for key, value in NETWORK.items():
        options.set_capability(key, value)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        browser.get(url)
        found = Page(browser)
        yield found
        problems = [one for one in browser.get_log("browser") if one["level"] in ("WARNING", "SEVERE")]
        assert [one for one in problems if "status of 4" not in one["message"]] == []  # a refused image is one
        assert [address for address in found.requests() if not address.startswith(f"{url}/")] == []
    finally:
        browser.quit()


def rows(detections: Any) -> list[list[str]]:
    return [[one.name, f"{one.score:.2f}", ", ".join(str(int(side + 0.5)) for side in one.box)] for one in detections]


def test_an_image_shows_its_objects_and_the_slider_chooses(page: Page, url: str, detector: Detector) -> None:
    assert page["copy"].get_property("disabled") and page["download"].get_property("disabled")
    page.open(ASTRONAUT)
    everything = detector.predict(ASTRONAUT, score_threshold=0.05)
    assert page.rows() == rows(everything.filter(score=0.3))
    assert page["count"].text == str(len(everything.filter(score=0.3)))
    assert page["model"].text == "voc"
    assert "person" in page["canvas"].get_attribute("aria-label")
    assert page.requests() == [f"{url}/", f"{url}/page.css", f"{url}/page.js", f"{url}/detect?score=0.05"]
    for threshold in (0.05, 0.35, 0.6, 0.95):
        page.set_threshold(threshold)
        assert page.rows() == rows(everything.filter(score=threshold))
        assert f"{page['count'].text} {page['noun'].text}" == plural(len(page.rows()), "object")
    assert page["threshold-value"].text == "0.95"
    assert page.requests() == []


def test_boxes_are_drawn_where_the_objects_are(page: Page, detector: Detector) -> None:
    page.open(ASTRONAUT)
    page.set_threshold(0.6)
    [person] = detector.predict(ASTRONAUT, score_threshold=0.6)
    drawn = page.pixels()
    scale = drawn.shape[1] / 512
    blue = (np.abs(drawn.astype(int) - [0x00, 0x72, 0xB2]) < 12).all(2)
    x1, y1, x2, y2 = (side * scale for side in person.box)
    for x in (x1, x2):
        column = blue[int(y1) + 40 : int(y2) - 5, max(0, int(x) - 2) : int(x) + 3]
        assert column.any(1).mean() > 0.95
    next(one for one in page["classes"].find_elements("tag name", "label") if "person" in one.text).click()
    assert (np.abs(page.pixels().astype(int) - [0x00, 0x72, 0xB2]) < 12).all(2).mean() < 0.001


def test_classes_switch_without_a_request(page: Page, detector: Detector) -> None:
    page.open(ASTRONAUT)
    page.requests()
    expected = detector.predict(ASTRONAUT)
    switches = page["classes"].find_elements("tag name", "label")
    texts = {switch.text.rpartition(" ")[0]: switch for switch in switches}
    assert set(expected.label_names) <= set(texts)
    assert texts["person"].text == "person 1"
    texts["person"].click()
    others = expected[[name != "person" for name in expected.label_names]]
    assert page.rows() == rows(others)
    page.open(PHOTOGRAPHS / "chelsea.png", "451")
    page.open(ASTRONAUT, "512")
    assert page.rows() == rows(others)
    assert len(page.requests()) == 2
    next(one for one in page["classes"].find_elements("tag name", "label") if one.text == "person 1").click()
    assert page.rows() == rows(expected)


def test_json_is_copied_and_the_image_downloaded(page: Page, detector: Detector, tmp_path: Path) -> None:
    page.browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    page.open(ASTRONAUT)
    page["copy"].click()
    expected = detector.predict(ASTRONAUT, score_threshold=0.3).to_dict()
    wait_until(lambda: page["status"].text == f"Copied {plural(len(expected['objects']), 'object')} as JSON.")
    copied = json.loads(page.run("return navigator.clipboard.readText()"))
    assert copied["objects"] == expected["objects"]
    page["download"].click()
    file = tmp_path / "detections.png"
    wait_until(file.is_file)
    drawn, plain = np.array(Image.open(file).convert("RGB")), np.array(Image.open(ASTRONAUT))
    assert drawn.shape == plain.shape
    changed = (np.abs(drawn.astype(int) - plain) > 20).any(2).mean()
    assert 0.01 < changed < 0.2


def test_the_keyboard_reaches_everything(page: Page) -> None:
    page.open(ASTRONAUT)
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    actions = webdriver.ActionChains(page.browser)
    page.run("document.activeElement.blur()")
    seen = []
    for _ in range(40):
        actions.send_keys(keys.TAB).perform()
        focus = page.browser.switch_to.active_element
        seen.append(
            focus.get_attribute("id") or focus.get_attribute("type") or focus.get_attribute("class") or focus.tag_name
        )
        if seen[-1] == "threshold":
            before = page["threshold-value"].text
            actions.send_keys(keys.ARROW_RIGHT).perform()
            assert float(page["threshold-value"].text) == pytest.approx(float(before) + 0.01)
        if seen[-1] == "checkbox" and seen.count("checkbox") == 1:
            number = len(page.rows())
            actions.send_keys(keys.SPACE).perform()
            assert len(page.rows()) == number - 1
            assert page.run("return document.activeElement.type") == "checkbox"  # it keeps the focus
        if seen[-1] == "body":
            break
    order = [name for name in seen if name != "checkbox"]
    assert order[:6] == ["file", "camera", "download", "threshold", "copy", "scroll"]
    assert seen.count("checkbox") == len(page["classes"].find_elements("tag name", "input"))


def test_errors_are_shown_and_the_next_image_works(page: Page, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("this is no image")
    page.open(text, "Error 400: image from bytes: expected an image")
    assert "error" in page["status"].get_attribute("class")
    page.open(ASTRONAUT)
    assert "error" not in page["status"].get_attribute("class")


def test_an_image_that_the_browser_cannot_show_has_its_table(page: Page, tmp_path: Path, detector: Detector) -> None:
    image = tmp_path / "cat.tif"
    Image.open(PHOTOGRAPHS / "chelsea.png").save(image)
    page.open(image, "This browser cannot show such an image.")
    assert page.rows() == rows(detector.predict(image))


def test_a_turned_photograph_is_upright_with_its_boxes(page: Page, tmp_path: Path, detector: Detector) -> None:
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(PHOTOGRAPHS / "chelsea.png").rotate(90, expand=True).save(turned, exif=exif)
    page.open(turned, "451 \u00d7 300")
    assert page.rows() == rows(detector.predict(turned))
    height, width = page.pixels().shape[:2]
    assert width > height


def test_dropping_and_pasting_send_an_image(page: Page) -> None:
    script = """
      const [kind, content, done] = arguments;
      const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], "a.png", { type: "image/png" }));
      document.dispatchEvent(kind === "drop" ? new DragEvent("drop", { dataTransfer: data, cancelable: true })
                                             : new ClipboardEvent("paste", { clipboardData: data }));
    """
    for kind, name, size in (("drop", "chelsea.png", "451 \u00d7 300"), ("paste", "coffee.png", "600 \u00d7 400")):
        page.run(script, kind, base64.b64encode((PHOTOGRAPHS / name).read_bytes()).decode())
        wait_until(lambda size=size: size in page["status"].text)  # type: ignore[misc]


def test_the_webcam_runs_until_it_is_stopped(page: Page, url: str) -> None:
    page["camera"].click()
    requests: list[str] = []
    wait_until(lambda: len(requests.extend(page.requests()) or requests) > 6)
    assert set(requests[3:]) == {f"{url}/detect?score=0.05"}
    assert page["camera"].get_attribute("aria-pressed") == "true"
    page["camera"].click()
    assert page["camera"].text == "Start webcam"
    wait_until(lambda: page.requests() == [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_at_360_px(page: Page, scheme: str) -> None:
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme_feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme_feature)
    page.open(ASTRONAUT)
    page.set_threshold(0.05)
    assert page.run("return document.documentElement.scrollWidth") <= 360
    sizes = "return [...document.querySelectorAll('button, label, td, th, p')].filter(e => e.offsetParent)"
    assert page.run(f"{sizes}.every(e => parseFloat(getComputedStyle(e).fontSize) >= 14)")
    assert page.run(
        "return [...document.querySelectorAll('button, .button, #classes label')].filter(e => e.offsetParent)"
        ".every(e => e.getBoundingClientRect().height >= 30 && e.getBoundingClientRect().right <= 360)"
    )
    for element in ("status", "model", "count", "copy"):
        text, back = (luminance(color) for color in page.run(COLORS, page[element]))
        assert (max(text, back) + 0.05) / (min(text, back) + 0.05) >= 4.5, element  # WCAG 2, level AA


COLORS = """
  let back = arguments[0];
  while (getComputedStyle(back).backgroundColor === "rgba(0, 0, 0, 0)") back = back.parentElement;
  return [getComputedStyle(arguments[0]).color, getComputedStyle(back).backgroundColor];
"""


def luminance(color: str) -> float:
    """WCAG's relative luminance of a CSS rgb()."""
    parts = np.array([int(part) / 255 for part in color.strip("rgba()").split(",")[:3]])
    return float(np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def test_a_token_is_asked_for(page: Page, detector: Detector) -> None:
    with serve(detector, token="secret") as address:
        page.browser.get(address)
        page.open(ASTRONAUT, "This server asks for a token.")
        count = plural(len(detector.predict(ASTRONAUT, score_threshold=0.3)), "object")
        for token, text in (("wrong", "Error 401"), ("secret", count)):
            page["token"].clear()
            page["token"].send_keys(token + "\n")
            wait_until(lambda text=text: text in page["status"].text)  # type: ignore[misc]
        assert not page["login"].is_displayed()
        assert "secret" not in page.browser.current_url
        page.requests()
