"""The service over HTTP: its answers are the predictor's, every mistake is one line of JSON, and nothing ends it."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from detseg.errors import ConfigError
from detseg.predict import Detections, SegmentationMap, load_predictor
from detseg.predict.interface import ObjectPredictor
from detseg.serve.models import ServedModel, open_models
from detseg.serve.settings import ServiceSettings
from detseg.structures import ClassTable, InstanceMasks
from tests.serve.servers import ask, raw, running
from tests.tiny import TinyRun

LIMITS = ServiceSettings(max_mb=200_000 / 2**20, max_megapixels=0.1, timeout=2.0)


def png(image: Any = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8) if image is None else image).save(buffer, format="PNG")
    return buffer.getvalue()


class FakeDetector(ObjectPredictor):
    """Finds one object, whose score is the grey of the first pixel / 255; ``gate`` holds it up, grey 13 breaks it."""

    def __init__(self) -> None:
        super().__init__(ClassTable(("cat", "dog")), (8, 8), None, "fake", "cpu", 0.05)
        self.gate = threading.Event()
        self.gate.set()
        self.sizes: list[int] = []

    def __call__(self, images: Any, batch_size: int = 1, **_: Any) -> Any:
        assert self.gate.wait(30)
        self.sizes.append(len(images))
        assert batch_size == len(images)
        greys = [int(image[0, 0, 0]) for image in images]
        if 13 in greys:
            raise ValueError("an unlucky\nnumber")
        box = np.array([[1, 2, 3, 4]], dtype=np.float32)
        return [
            Detections(
                box,
                np.array([grey / 255], dtype=np.float32),
                np.array([1]),
                self.classes,
                InstanceMasks.from_dense(np.ones((1, *image.shape[:2]), dtype=np.bool_)),
                image,
            )
            for grey, image in zip(greys, images, strict=True)
        ]

    def _predict(self, images: list[Any]) -> list[Detections]:
        raise NotImplementedError


@pytest.fixture
def detector() -> FakeDetector:
    return FakeDetector()


@pytest.fixture(scope="module")
def service() -> Iterator[httpx.Client]:
    with running([ServedModel("fake", FakeDetector())], LIMITS) as client:
        yield client


@pytest.fixture(scope="module")
def tiny(tiny_run: TinyRun, tiny_segmentation: TinyRun) -> Iterator[httpx.Client]:
    with running(open_models([tiny_run.run_dir, tiny_segmentation.best], ServiceSettings(device="cpu"))) as client:
        yield client


def test_answers_are_those_of_the_predictor(tiny: httpx.Client, tiny_run: TinyRun) -> None:
    images = sorted((tiny_run.data_root / "JPEGImages").glob("val*"))
    predictor: Any = load_predictor(tiny_run.run_dir, "cpu", 0.3)
    with ThreadPoolExecutor(len(images)) as pool:  # at once, so that they share batches
        answers = list(pool.map(lambda path: ask(tiny, path.read_bytes(), masks="true").json(), images))
    num_objects = 0
    for path, answer in zip(images, answers, strict=True):
        found = predictor(path)
        height, width = found.image.shape[:2]
        assert answer["image"] == {"width": width, "height": height}
        assert [one["name"] for one in answer["objects"]] == found.names
        boxes = np.array([one["box"] for one in answer["objects"]]).reshape(-1, 4)
        np.testing.assert_allclose(boxes, found.boxes, atol=1e-3)
        np.testing.assert_allclose([one["score"] for one in answer["objects"]], found.scores, atol=1e-5)
        num_objects += len(found)
    assert num_objects > 3
    assert max(answer["timing"]["batch_size"] for answer in answers) > 1


def test_score_and_classes_choose(tiny: httpx.Client, tiny_run: TinyRun) -> None:
    data = (tiny_run.data_root / "JPEGImages" / "val01.png").read_bytes()
    everything = ask(tiny, data, score=0.05).json()["objects"]
    assert everything
    sure = ask(tiny, data, score=0.5, classes="blue,red").json()["objects"]
    assert sure == [one for one in everything if one["score"] >= 0.5 and one["name"] in ("blue", "red")]


def test_maps_are_those_of_the_predictor(tiny: httpx.Client, tiny_segmentation: TinyRun) -> None:
    path = tiny_segmentation.data_root / "JPEGImages" / "val01.png"
    answer = ask(tiny, path.read_bytes(), model="run-2").json()
    found: Any = load_predictor(tiny_segmentation.best, "cpu")(path)
    assert isinstance(found, SegmentationMap)
    labels = Image.open(io.BytesIO(base64.b64decode(answer["labels"])))
    assert labels.mode == "P"
    np.testing.assert_array_equal(np.asarray(labels), found.labels)
    assert answer["pixels"] == found.areas


def test_json_and_bytes_are_one(service: httpx.Client) -> None:
    data = png(np.full((4, 6, 3), 204, dtype=np.uint8))
    plain = ask(service, data, score=0.5, masks="true", classes="dog").json()
    content = {"image": base64.b64encode(data).decode(), "score": 0.5, "masks": True, "classes": ["dog"]}
    coded = service.post("/predict", json=content).json()
    assert {**plain, "timing": 0} == {**coded, "timing": 0}
    lines = base64.encodebytes(data).decode()  # with line breaks
    for image, masks in ((lines, 1), (f"data:image/png;base64,{content['image']}", "True")):
        again = service.post("/predict", json={**content, "image": image, "masks": masks}).json()
        assert {**again, "timing": 0} == {**plain, "timing": 0}
    assert plain["objects"][0]["score"] == pytest.approx(0.8)
    # Column by column, no pixel outside and 24 inside: "0" and 24 = 11000 in two characters of five bits.
    mask = {"size": [4, 6], "counts": "0h0"}
    assert plain["objects"] == [{**plain["objects"][0], "box": [1, 2, 3, 4], "label": 1, "name": "dog", "mask": mask}]


def test_a_picture_has_the_size_of_the_image(service: httpx.Client) -> None:
    answer = ask(service, png(np.full((40, 60, 3), 250, dtype=np.uint8)), format="image")
    assert answer.headers["content-type"] == "image/jpeg"
    drawn = Image.open(io.BytesIO(answer.content))
    assert drawn.size == (60, 40)
    assert np.asarray(drawn).min() < 200  # a box
    decoded = ask(service, png(np.full((40, 60, 3), 250, dtype=np.uint8)), format="decoded")
    np.testing.assert_allclose(np.asarray(Image.open(io.BytesIO(decoded.content))), np.full((40, 60, 3), 250), atol=2)


def test_a_picture_that_jpeg_cannot_hold(service: httpx.Client) -> None:
    for option in ("image", "decoded"):
        answer = ask(service, png(np.zeros((1, 65_501, 3), dtype=np.uint8)), format=option)
        most = "a JPEG, with which format=image and format=decoded answer, has at most 65500 on a side"
        assert (answer.status_code, most in answer.json()["error"]) == (413, True)


def bomb() -> bytes:
    """A small PNG that declares 20 000 × 20 000 pixels."""
    data = bytearray(png())
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


JSON = "application/json"
NOISE = np.random.default_rng(0).integers(0, 255, (99, 99, 3)).astype(np.uint8)
MISTAKES: list[tuple[str, bytes, str, dict[str, str], int, str]] = [
    ("no image", b"hello", "image/png", {}, 422, "not an image that can be read here, or damaged; read are"),
    ("empty", b"", "image/png", {}, 422, "not an image"),
    (
        "truncated",
        png(np.random.default_rng(0).integers(0, 255, (99, 99, 3)).astype(np.uint8))[:9000],
        "image/png",
        {},
        422,
        "the image",
    ),
    (
        "too many pixels",
        png(np.zeros((400, 300, 3), dtype=np.uint8)),
        "image/png",
        {},
        413,
        "the image has 300 x 400 pixels, more than the 0.1 million that this service reads; make it smaller",
    ),
    ("bomb", bomb(), "image/png", {}, 413, "the image has 20000 x 20000 pixels, more than"),
    ("too long", bytes(200_001), "image/png", {}, 413, "the request has 0.2 MiB; this service takes up to 0.2 MiB"),
    ("form", b"image=x", "application/x-www-form-urlencoded", {}, 415, "expected the bytes of an image"),
    ("multipart", b"--x", "multipart/form-data; boundary=x", {}, 415, "got Content-Type 'multipart/form-data'"),
    ("no JSON", b"{", JSON, {}, 400, "the body is not JSON: Expecting"),
    ("deep JSON", b"[" * 100_000, JSON, {}, 400, "the body is not JSON"),
    ("long number", b"9" * 10_000, JSON, {}, 400, "the body is not JSON"),
    ("not UTF-8", b"\xff\xfe\xfd", JSON, {}, 400, "the body is not JSON"),
    ("list", b"[1]", JSON, {}, 400, 'expected a JSON object with the key "image"'),
    ("no base64", b'{"image": "\xc3\xa4"}', JSON, {}, 400, '"image" is not base64'),
    (
        "JSON option",
        b'{"image": "", "colour": 1}',
        JSON,
        {},
        400,
        "there is no option 'colour'; the options are",
    ),
    ("option", png(), "image/png", {"tile": "5"}, 400, "there is no option 'tile'"),
    ("model", png(), "image/png", {"model": "other"}, 400, "model: expected fake, got 'other'"),
    ("low score", png(), "image/png", {"score": "0.01"}, 400, "score: expected a number from 0.05 to 1, got '0.01'"),
    ("no score", png(), "image/png", {"score": "nan"}, 400, "score: expected a number"),
    ("true score", b'{"image": "", "score": true}', JSON, {}, 400, "score: expected a number"),
    ("huge score", b'{"image": "", "score": 1' + b"0" * 999 + b"}", JSON, {}, 400, "score: expected a number"),
    ("class", png(), "image/png", {"classes": "dog,cow"}, 400, "classes: expected some of cat, dog, got 'dog,cow'"),
    ("class list", b'{"image": "", "classes": [[]]}', JSON, {}, 400, "classes: expected some of"),
    ("masks", png(), "image/png", {"masks": "yes"}, 400, "masks: expected false, true, got 'yes'"),
    ("format", b'{"image": "", "format": ["json"]}', JSON, {}, 400, "format: expected json, image, decoded, got ["),
]


@pytest.mark.parametrize(
    ("data", "kind", "query", "status", "message"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_a_mistake_is_one_line(
    service: httpx.Client, data: bytes, kind: str, query: dict[str, str], status: int, message: str
) -> None:
    answer = ask(service, data, kind, **query)
    assert answer.status_code == status, answer.text
    error = answer.json()
    assert list(error) == ["error"]
    assert message in error["error"]
    assert "\n" not in error["error"]
    assert ask(service, png()).status_code == 200


def test_paths_and_methods(service: httpx.Client) -> None:
    assert service.get("/nothing").status_code == 404
    wrong = service.get("/predict")
    assert wrong.json() == {"error": "GET /predict: Method Not Allowed; GET /docs lists the operations"}
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert service.get("/samples/0").status_code == 404


HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: image/png\r\n"


def test_a_body_is_not_read_beyond_its_limit(service: httpx.Client) -> None:
    begin = time.monotonic()
    declared = raw(service, HEAD + b"expect: 100-continue\r\ncontent-length: 99999999999\r\n\r\n")
    assert declared == (413, '{"error":"the request has 95367.5 MiB; this service takes up to 0.2 MiB"}')
    assert time.monotonic() - begin < 1  # nothing was waited for
    chunked = b"transfer-encoding: chunked\r\n\r\n" + b"10000\r\n" + bytes(0x10000) + b"\r\n"
    chunks = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    assert raw(service, HEAD + chunked + 3 * chunks + b"0\r\n\r\n")[0] == 413


def test_what_does_not_arrive_in_time(service: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = raw(service, HEAD + b"content-length: 100\r\n\r\nabc")
    assert slow == (408, '{"error":"the body did not arrive within 2 s"}')
    monkeypatch.setattr("detseg.serve.server.HEADER_SECONDS", 0.5)
    for beginning in (b"", b"POST /pre", HEAD):
        assert raw(service, beginning) == (408, '{"error": "no request arrived within 0.5 s"}')
    assert raw(service, b"\x16\x03\x01 is TLS\r\n\r\n") == (400, '{"error": "Invalid HTTP request received"}')
    whole = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    assert raw(service, whole, b"GET /hea") == (408, '{"error": "no request arrived within 0.5 s"}')
    counted = service.get("/metrics").text
    assert all(f'detseg_requests_total{{path="other",status="{status}"}}' in counted for status in (400, 408))
    unread = whole.replace(b"x\r\n", b"x\r\ncontent-length: 1000\r\n")  # the answer does not wait for the body
    assert raw(service, unread, b"a") == (408, '{"error": "no request arrived within 0.5 s"}')


def test_connections_are_bounded(service: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    address = (service.base_url.host, service.base_url.port or 0)
    monkeypatch.setattr("detseg.serve.server.most_connections", lambda _: 3)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(3)]
        too_many = (503, '{"error": "there are too many connections; try again in a second"}')
        assert raw(service) == too_many
        silent[0].close()
        time.sleep(0.1)
        assert silent[1].send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert silent[1].recv(100).startswith(b"HTTP/1.1 200 ")
        assert silent[1].send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.2)
        assert b'path="other",status="503"}' in silent[1].recv(1 << 20)


def test_an_answer_that_nobody_reads(detector: FakeDetector) -> None:
    """It has its place in the queue until the system has taken all of it, or the time is over."""
    settings, image = ServiceSettings(timeout=1.5, max_queue=1), png(np.tile(NOISE, (6, 6, 1)))
    head = b"POST /predict?format=image HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n"
    with running([ServedModel("fake", detector)], settings, send_buffer=4096) as client, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((client.base_url.host, client.base_url.port or 0))
        deaf.sendall(head + b"content-length: %d\r\n\r\n" % len(image) + image)
        assert deaf.recv(10)  # the answer begins
        assert ask(client, png()).status_code == 503
        end = time.monotonic() + 20
        while ask(client, png()).status_code == 503:
            assert time.monotonic() < end
            time.sleep(0.1)
        deaf.settimeout(5)
        received = b""
        while part := deaf.recv(1 << 16):
            received += part
        assert not received.endswith(b"\xff\xd9")  # which ends a JPEG: the rest was thrown away
        assert "detseg_queue_length 0.0" in client.get("/metrics").text


def test_a_client_that_goes_away_leaves_nothing(service: httpx.Client) -> None:
    for _ in range(20):
        with socket.create_connection((service.base_url.host, service.base_url.port or 0)) as connection:
            connection.sendall(HEAD + b"content-length: 100\r\n\r\nabc")
    time.sleep(0.3)
    assert "detseg_queue_length 0.0" in service.get("/metrics").text


def test_an_image_that_fails_takes_no_other_along(detector: FakeDetector) -> None:
    settings = ServiceSettings(max_wait_ms=500)
    with running([ServedModel("fake", detector)], settings) as client, ThreadPoolExecutor(8) as pool:
        detector.gate.clear()
        images = [png(np.full((8, 8, 3), grey, dtype=np.uint8)) for grey in (200, 13, 210, 220)]
        asked = [pool.submit(ask, client, image) for image in images]
        time.sleep(0.5)
        detector.gate.set()
        answers = [one.result() for one in asked]
    assert [answer.status_code for answer in answers] == [200, 500, 200, 200]
    assert answers[1].json() == {"error": "the model failed: ValueError: an unlucky number"}
    assert [answers[i].json()["objects"][0]["score"] for i in (0, 2, 3)] == pytest.approx(
        [200 / 255, 210 / 255, 220 / 255]
    )


def test_waiting_requests_share_batches_and_too_many_are_refused(detector: FakeDetector) -> None:
    # the ninth image is decoded only once there is room, so the last batch waits for it, however slow the machine is
    settings = ServiceSettings(max_batch=4, max_wait_ms=10_000, max_queue=9)
    with running([ServedModel("fake", detector)], settings) as client, ThreadPoolExecutor(9) as pool:
        detector.gate.clear()
        asked = [pool.submit(ask, client, png())]
        time.sleep(0.3)  # the first one is in the network
        asked += [pool.submit(ask, client, png()) for _ in range(8)]
        time.sleep(0.5)
        refused = ask(client, png())
        detector.gate.set()
        assert [one.result().status_code for one in asked] == [200] * 9
        metrics = client.get("/metrics").text
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json() == {"error": "9 requests are waiting; try again in a second"}
    assert detector.sizes == [1, 1, 4, 4]  # the first is the warm-up
    for line in (
        'detseg_requests_total{path="/predict",status="200"} 9.0',
        'detseg_requests_total{path="/predict",status="503"} 1.0',
        'detseg_batch_size_bucket{le="2.0",model="fake"} 2.0',
        'detseg_batch_size_sum{model="fake"} 10.0',
        'detseg_request_seconds_count{path="/predict"} 10.0',
        "detseg_queue_length 0.0",
    ):
        assert line in metrics, metrics


def test_a_result_that_takes_too_long(detector: FakeDetector) -> None:
    with running([ServedModel("fake", detector)], ServiceSettings(timeout=0.5)) as client:
        detector.gate.clear()
        late = ask(client, png())
        detector.gate.set()
        assert late.status_code == 504
        assert late.json() == {"error": "there is no result after 0.5 s; try again later"}
        assert ask(client, png()).status_code == 200


def test_nothing_is_predicted_for_a_client_that_has_gone(detector: FakeDetector) -> None:
    with running([ServedModel("fake", detector)]) as client, ThreadPoolExecutor(1) as pool:
        detector.gate.clear()
        first = pool.submit(ask, client, png())
        time.sleep(0.2)  # it is in the network
        with pytest.raises(httpx.ReadTimeout):
            client.post("/predict", content=png(), headers={"content-type": "image/png"}, timeout=0.2)
        time.sleep(0.1)
        detector.gate.set()
        assert first.result().status_code == 200
        assert ask(client, png()).status_code == 200
        assert 'path="/predict",status="400"} 1.0' in client.get("/metrics").text
    assert detector.sizes == [1, 1, 1]  # the first is the warm-up


def test_it_is_ready_once_the_models_have_seen_an_image(detector: FakeDetector) -> None:
    detector.gate.clear()
    threading.Timer(0.5, detector.gate.set).start()
    begin = time.monotonic()
    with running([ServedModel("fake", detector)]) as client:
        assert time.monotonic() - begin > 0.4
        assert client.get("/health").json() == {"status": "ready"}


def test_the_key_is_asked_for(detector: FakeDetector) -> None:
    with running([ServedModel("fake", detector)], ServiceSettings(api_key="secret")) as client:
        for headers in (
            {},
            {"authorization": "Bearer other"},
            {"authorization": "secret"},
            {"authorization": b"Bearer \xe4"},
        ):
            for method, path in (("POST", "/predict"), ("GET", "/models"), ("GET", "/metrics")):
                answer = client.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json() == {"error": "this service needs its key: Authorization: Bearer KEY"}
        client.headers["authorization"] = "Bearer secret"
        assert ask(client, png()).status_code == 200
        assert client.get("/models").json()["models"][0]["classes"] == ["cat", "dog"]
    for key in ("", "a\nb", "ä"):
        with pytest.raises(ConfigError, match=r"the API key \(--api-key-file, or DETSEG_API_KEY\): expected ASCII"):
            ServiceSettings(api_key=key)


def test_operations_are_described(service: httpx.Client) -> None:
    document = service.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        assert service.get(path).status_code == (405 if "post" in methods else 200)
    page = service.get("/docs").text
    assert all(f"{path}</code>" in page for path in document["paths"])
    for path in ("/", "/docs"):
        answer = service.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not any(word in answer.text for word in ('src="http', 'href="http', "url(http", "@import"))
    statuses = {mistake[4] for mistake in MISTAKES} | {401, 408, 500, 503, 504}
    assert {int(status) for status in document["paths"]["/predict"]["post"]["responses"]} == {200, *statuses}


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="max_batch: expected 1 to 1024, got 0"):
        ServiceSettings(max_batch=0)
    with pytest.raises(ConfigError, match="no model given"):
        open_models([], ServiceSettings())


def test_names_are_told_apart(tiny_run: TinyRun) -> None:
    models = open_models([tiny_run.run_dir, tiny_run.best, Path(tiny_run.run_dir)], ServiceSettings(device="cpu"))
    assert [model.name for model in models] == ["run", "run-2", "run-3"]
    assert json.loads(json.dumps(models[0].describe()))["task"] == "detection"
