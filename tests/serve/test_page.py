"""The page of a service, used in a headless Chromium: chosen images, moved thresholds, hidden classes, the camera."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from detseg.predict import load_predictor
from detseg.serve.models import ServedModel, open_models
from detseg.serve.settings import ServiceSettings
from tests.browser import Page, needs_chromium
from tests.serve.servers import running
from tests.serve.test_service import FakeDetector
from tests.tiny import TinyRun

pytestmark = [needs_chromium, pytest.mark.browser]


@pytest.fixture(scope="module")
def service(tiny_run: TinyRun, tiny_segmentation: TinyRun) -> Iterator[httpx.Client]:
    """A detector of boxes, one of masks, and a segmenter; with two samples."""
    opened = open_models([tiny_run.run_dir, tiny_segmentation.run_dir], ServiceSettings(device="cpu"))
    models = [ServedModel("boxes", opened[0].predictor), ServedModel("map", opened[1].predictor)]
    samples = sorted((tiny_run.data_root / "JPEGImages").glob("val*"))[:2]
    with running([*models, ServedModel("masks", FakeDetector())], samples=samples) as client:
        yield client


def text(page: Page, id_: str) -> Any:
    return page.value(f"element('{id_}').textContent")


def choose(page: Page, image: Path) -> None:
    page.choose_file("#file", image)
    page.wait("!element('results').hidden && element('status').textContent !== 'Predicting …'")


def test_a_detector(service: httpx.Client, tiny_run: TinyRun, tmp_path: Path) -> None:
    image = tiny_run.data_root / "JPEGImages" / "val01.png"
    found: Any = load_predictor(tiny_run.run_dir, "cpu", 0.05)(image)
    with Page(str(service.base_url), tmp_path) as page:
        page.wait("service")
        choose(page, image)
        at_first = sum(float(f"{score:.2f}") >= 0.3 for score in found.scores.tolist())  # compared as it is printed
        assert text(page, "status") == f"boxes: {at_first} object{'s' * (at_first != 1)}"
        # The browser asks once: the slider, by its keys, filters.
        page.value("window.fetch = () => { throw Error('asked again') }")
        page.value("element('threshold').focus()")
        page.press("Home", 36)
        assert text(page, "at") == "0.05"
        assert page.value("document.querySelectorAll('figure li').length") == len(found)
        # The highest score of a class on the page is that of the predictor.
        name = found.names[0]
        assert text(page, "json") == ""  # it is written once it is wanted
        page.click("summary")
        page.wait("element('json').textContent")
        shown = json.loads(text(page, "json"))
        assert shown["objects"][0]["score"] == pytest.approx(float(found.scores[0]), abs=1e-5)
        page.click(f"#classes input[value={name}]")
        own = sum(other == name for other in found.names)
        left = len(found) - own
        assert page.value(f"document.querySelector('#classes input[value={name}] ~ .count').textContent") == str(own)
        assert len(json.loads(text(page, "json"))["objects"]) == left
        page.click("#none")
        assert text(page, "status") == f"boxes: 0 of {len(found)} objects are of the ticked classes"
        page.click("#all")
        assert page.value("element('overlay').hidden")  # it has no masks
        page.click("#copy")
        page.wait("element('copy').textContent !== 'Copy JSON'")
        assert text(page, "copy").startswith(("Copied", "Selected"))
        assert "to predict" in page.value("document.querySelector('figcaption p').textContent")
        # A row marks its box in the picture.
        page.value("document.querySelector('figure li').dispatchEvent(new PointerEvent('pointerenter'))")
        mark, canvas = page.value(
            "['.mark', 'canvas'].map(s => document.querySelector(s).getBoundingClientRect().toJSON())"
        )
        scale = canvas["width"] / shown["image"]["width"]
        x1, _, x2, _ = shown["objects"][0]["box"]
        assert mark["left"] - canvas["left"] == pytest.approx(x1 * scale, abs=1)
        assert mark["width"] == pytest.approx((x2 - x1) * scale, abs=1)
        # What is written keeps its size where the window's height limits the picture.
        page.send("Emulation.setDeviceMetricsOverride", width=1280, height=400, deviceScaleFactor=1, mobile=False)
        size = (
            "(c => parseFloat(c.getContext('2d').font) * c.clientHeight / c.height)(document.querySelector('canvas'))"
        )
        page.wait(f"Math.abs({size} - 12) < 0.1")
        page.value("element('threshold').focus()")
        page.press("End", 35)
        assert text(page, "status") == f"boxes: 0 of {len(found)} objects score 1.00 or more"
        assert page.messages == []


def color_at(page: Page, x: float, y: float) -> list[int]:
    """Of the first canvas, at a part of its sides."""
    place = f"c => [...c.getContext('2d').getImageData(c.width * {x}, c.height * {y}, 1, 1).data].slice(0, 3)"
    return list(page.value(f"({place})(document.querySelector('canvas'))"))


def test_masks_and_maps_are_drawn_where_they_are(
    service: httpx.Client, tiny_segmentation: TinyRun, tmp_path: Path
) -> None:
    grey = tmp_path / "grey.png"
    Image.fromarray(np.full((50, 90, 3), 200, dtype=np.uint8)).save(grey)
    with Page(str(service.base_url), tmp_path) as page:
        page.wait("service")
        page.value("element('model').value = 'masks'; element('model').dispatchEvent(new Event('change'))")
        choose(page, grey)
        over = color_at(page, 0.9, 0.9)  # far from the box, in the mask
        assert over[2] > over[0] + 40  # the blue of the second class
        page.click("#masks")
        assert color_at(page, 0.9, 0.9) == [200, 200, 200]
        # What a browser shows otherwise or not at all comes from the service: black on the left, or turned.
        halves = Image.fromarray(np.repeat(np.uint8([0, 240]), 40)[None, :, None].repeat(50, 0).repeat(3, 2))
        exif = Image.Exif()
        exif[0x112] = 3
        halves.save(tmp_path / "turned.webp", exif=exif, lossless=True)
        halves.save(tmp_path / "plain.tif")
        for name, left in {"turned.webp": 240, "plain.tif": 0}.items():
            choose(page, tmp_path / name)
            assert color_at(page, 0.1, 0.1) == pytest.approx([left] * 3, abs=6)
        page.click("#masks")
        page.value("element('model').value = 'map'; element('model').dispatchEvent(new Event('change'))")
        page.wait("element('status').textContent.startsWith('map')")
        image = tiny_segmentation.data_root / "JPEGImages" / "val01.png"
        choose(page, image)
        found: Any = load_predictor(tiny_segmentation.run_dir, "cpu")(image)
        page.click("summary")
        page.wait("element('json').textContent")
        assert json.loads(text(page, "json"))["pixels"] == found.areas
        page.click("#classes input[value=ground]")
        assert json.loads(text(page, "json"))["pixels"].keys() == found.areas.keys() - {"ground"}
        assert page.value("element('score').hidden")
        labels = page.value("[...answers[0].map]")
        assert labels == found.labels.ravel().tolist()
        assert page.messages == []


def test_two_models_side_by_side_and_samples(service: httpx.Client, tmp_path: Path) -> None:
    with Page(str(service.base_url), tmp_path) as page:
        page.wait("service")
        page.click("#samples button:last-of-type")
        page.wait("!element('results').hidden")
        page.value("element('other').value = 'masks'; element('other').dispatchEvent(new Event('change'))")
        page.wait("document.querySelectorAll('figure').length === 2")
        assert page.value("[...document.querySelectorAll('figure h2')].map(h => h.textContent)") == ["boxes", "masks"]
        left, right = page.value("[...document.querySelectorAll('canvas')].map(c => c.getBoundingClientRect().left)")
        assert right > left + 300
        page.click("summary")
        page.wait("element('json').textContent")
        assert [answer["model"] for answer in json.loads(text(page, "json"))] == ["boxes", "masks"]
        assert text(page, "whose") == "boxes / masks"
        # What the first model found stays when the other one fails.
        page.value(
            "window.real = fetch; window.fetch = (a, o) => a.includes('masks&') ? Promise.reject(Error()) : real(a, o)"
        )
        page.value("predict()")
        assert text(page, "error") == "masks: The service does not answer. Is it still running?"
        assert page.value("[...document.querySelectorAll('figure')].length") == 1
        assert page.value("!element('again').hidden && !element('results').hidden")
        page.value("window.fetch = window.real")
        assert page.value("[...element('other').options].map(o => o.value)") == ["", "map", "masks"]
        page.value("element('model').value = 'masks'; element('model').dispatchEvent(new Event('change'))")
        assert page.value("element('other').value") == "boxes"  # they change places


def test_a_picture_is_shown_with_its_own_answers_alone(service: httpx.Client, tmp_path: Path) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.fromarray(np.full((50, 90, 3), 200, dtype=np.uint8)).save(small)
    Image.fromarray(np.full((60, 80, 3), 90, dtype=np.uint8)).save(large)
    with Page(str(service.base_url), tmp_path) as page:
        page.wait("service")
        page.value("element('model').value = 'masks'")
        choose(page, small)
        page.click("#masks")
        page.value("window.real = fetch; window.fetch = (_, o) => { window.first = o; return new Promise(() => {}) }")
        page.choose_file("#file", large)
        page.wait(
            "window.first && element('results').classList.contains('old')"
        )  # dimmed, and the same picture as before
        page.value("element('threshold').focus()")
        page.press("ArrowRight", 39)
        assert color_at(page, 0.9, 0.9) == [200, 200, 200]
        assert text(page, "status") == "Predicting …"
        # A model that fails: nothing is shown that is not of the chosen one, and the next sees the chosen image.
        page.value('window.fetch = () => Promise.resolve(new Response(\'{"error": "full"}\', { status: 503 }))')
        page.value("element('model').value = 'boxes'; element('model').dispatchEvent(new Event('change'))")
        page.wait("element('error').textContent === 'full'")
        assert page.value("window.first.signal.aborted")
        assert page.value("element('results').hidden && element('more').hidden && !element('again').hidden")
        page.value("window.fetch = () => Promise.resolve(new Response('<html>', { status: 502 }))")
        page.click("#again")
        page.wait("element('error').textContent === 'HTTP 502: the answer is not the service\\'s.'")
        page.value("window.fetch = window.real")
        page.value("element('model').value = 'masks'; element('model').dispatchEvent(new Event('change'))")
        page.wait("!element('results').hidden")
        assert color_at(page, 0.9, 0.9) == [90, 90, 90]
        assert page.value("element('error').hidden && !element('results').classList.contains('old')")


def test_the_camera(service: httpx.Client, tmp_path: Path) -> None:
    with Page(str(service.base_url), tmp_path) as page:
        page.wait("service && !element('camera').hidden")
        page.click("#camera")
        page.wait("element('video').videoWidth > 0")
        page.value("window.first = element('video').srcObject.getTracks()[0]")
        page.click("#camera")  # it is open: no second stream takes the place of the first
        assert page.value("element('video').srcObject.getTracks()[0] === window.first")
        page.press("Escape", 27)
        assert page.value("element('viewfinder').hidden && !element('video').srcObject")
        assert page.value("window.first.readyState") == "ended"
        page.click("#camera")
        page.wait("element('video').videoWidth > 0")
        page.value("window.second = element('video').srcObject.getTracks()[0]")
        page.value("fetch('/openapi.json').then(answer => answer.blob()).then(take)")  # any other file
        assert page.value("window.second.readyState === 'ended' && element('viewfinder').hidden")
        page.click("#camera")
        page.wait("element('video').videoWidth > 0")
        page.click("#shoot")
        page.wait("!element('results').hidden")
        assert page.value("element('viewfinder').hidden")
        assert page.value("answers[0].content.image.width") > 100


def test_by_keyboard_alone(service: httpx.Client, tmp_path: Path) -> None:
    with Page(str(service.base_url), tmp_path) as page:
        page.wait("document.querySelectorAll('#samples button').length === 2 && !element('camera').hidden")
        order = []
        for _ in range(6):
            page.press("Tab", 9)
            order.append(page.value("document.activeElement.id || document.activeElement.firstElementChild.alt"))
            outlined = (
                "getComputedStyle(document.activeElement.closest('.button') ?? document.activeElement).outlineStyle"
            )
            assert page.value(outlined) == "solid"
        assert order == ["model", "other", "file", "camera", "sample 1", "sample 2"]
        page.press("Enter", 13)
        page.wait("!element('results').hidden")
        page.value("element('threshold').focus()")
        page.press("Home", 36)
        # In the list the first row takes the focus, the arrows move it.
        page.value("document.querySelector('figure li').focus()")
        assert page.value("document.activeElement.tabIndex") == 0
        page.press("ArrowDown", 40)
        assert page.value("document.activeElement === document.querySelectorAll('figure li')[1]")
        assert page.value("document.querySelectorAll('.mark').length") == 1


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_window_and_can_be_read(
    service: httpx.Client, tiny_run: TinyRun, width: int, dark: bool, tmp_path: Path
) -> None:
    with Page(str(service.base_url), tmp_path, width, dark=dark) as page:
        page.wait("service")
        choose(page, tiny_run.data_root / "JPEGImages" / "val01.png")
        assert page.value("document.documentElement.scrollWidth") == width
        light = "c => { const [r, g, b] = c.match(/[0-9.]+/g).map(Number); return 0.3 * r + 0.6 * g + 0.1 * b; }"
        ink, paper = page.value(f"['color', 'backgroundColor'].map(k => ({light})(getComputedStyle(document.body)[k]))")
        assert (ink - paper if dark else paper - ink) > 150
        if width == 390:
            small = "[...document.querySelectorAll('button, select, .button')].filter(e => e.offsetParent && "
            small += "e.getBoundingClientRect().height < 24).map(e => e.id)"
            assert page.value(small) == []


def test_what_goes_wrong_is_said(tmp_path: Path) -> None:
    text_file = tmp_path / "notes.png"
    text_file.write_text("no image")
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((50, 90, 3), 200, dtype=np.uint8)).save(photo)
    settings = ServiceSettings(api_key="secret")
    with running([ServedModel("fake", FakeDetector())], settings) as client:
        page = Page(str(client.base_url), tmp_path)
        with page:
            page.wait("!element('error').hidden")
            assert "needs its key" in text(page, "error")
            page.choose_file("#file", photo)  # it is kept until the key is right
            page.value("element('key').value = 'other'")
            page.click("#key-form button")
            page.wait("element('error').textContent === 'This key is not right.'")
            page.value("element('key').value = 'secret'")
            page.click("#key-form button")
            page.wait("service")
            page.wait("!element('results').hidden")
            assert page.value("element('error').hidden && element('key-form').hidden")
            assert text(page, "finds") == "fake finds cat, dog"
            # A file that cannot be read takes everything of the image before away.
            page.value("take({ size: 1, type: '', arrayBuffer: () => Promise.reject(Error()) })")
            assert "a folder, or it has gone" in text(page, "error")
            assert page.value("['controls', 'results', 'more', 'again'].every(id => element(id).hidden)")
            page.value("take({ size: 30 * 2 ** 20 })")
            assert text(page, "error") == "This file has 30 MiB; this service takes up to 20 MiB."
            page.choose_file("#file", text_file)
            page.wait("!element('error').hidden")
            assert "not an image" in text(page, "error")
            assert text(page, "status") == ""
            client_is_gone = text(page, "error")
            page.value("element('error').textContent = ''")
            page.value("window.fetch = () => Promise.reject(Error('x'))")
            page.choose_file("#file", text_file)
            page.wait("element('error').textContent")
            assert text(page, "error") != client_is_gone
            assert "Is it still running?" in text(page, "error")
