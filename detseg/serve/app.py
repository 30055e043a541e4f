"""The service as an ASGI application: its operations, the order in which a request is checked, and its errors."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detseg.memory import give_freed_memory_back
from detseg.messages import one_line, printable
from detseg.serve.answers import choose, timing, to_json, to_picture
from detseg.serve.batching import Batcher
from detseg.serve.metrics import CONTENT_TYPE, ServiceMetrics
from detseg.serve.models import ServedModel
from detseg.serve.openapi import openapi_document
from detseg.serve.pages import PAGE_HEADERS, demo_page, docs_page
from detseg.serve.request import Options, decode_image, is_json, parse_json, read_body
from detseg.serve.settings import ServiceError, ServiceSettings
from detseg.structures import SCORE_THRESHOLD

logger = logging.getLogger("detseg")

T = TypeVar("T")

_IDLE_SECONDS = 1.0  # after which memory is given back
_LINGER = 2.0  # seconds in which the rest of a refused body is thrown away, so that its sender sees the answer


class Service:
    """Models, their batchers, and the operations on them.

    Args:
        models: at least one; requests that name none get the first.
        settings: see ``ServiceSettings``.
        samples: images that the page offers.
    """

    def __init__(self, models: Sequence[ServedModel], settings: ServiceSettings, samples: Sequence[Path] = ()) -> None:
        self.models, self.settings, self.samples = list(models), settings, list(samples)
        self.metrics = ServiceMetrics()
        self.ready = False
        self._batchers: dict[str, Batcher] = {}
        self._threads = ThreadPoolExecutor(min(os.cpu_count() or 1, 8), thread_name_prefix="images")
        self._num_requests, self._used = 0, asyncio.Event()

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[dict[str, Any]]:
        """The batchers run within the block; the service is ready once each model has seen an image. The state that it
        gives has ``metrics``, for a server that answers something by itself."""
        tasks = []
        for model in self.models:
            size = self.metrics.batch_size.labels(model.name)
            settings = self.settings
            batcher = Batcher(_predict(model), settings.max_batch, settings.max_wait_ms / 1000, size.observe)
            self._batchers[model.name] = batcher
            tasks.append(asyncio.create_task(batcher.run()))
        tasks.append(asyncio.create_task(self._warm_up()))
        tasks.append(asyncio.create_task(self._give_memory_back()))
        try:
            yield {"metrics": self.metrics}
        finally:
            self.ready = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for batcher in self._batchers.values():
                batcher.close()
            self._threads.shutdown(wait=False)

    async def _warm_up(self) -> None:
        """The first image is slower than all others."""
        blank = np.zeros((64, 64, 3), dtype=np.uint8)
        try:
            for batcher in self._batchers.values():
                await batcher.predict(blank)
            self.ready = True
        except Exception:  # it stays unready, and the log says why
            logger.exception("a model fails on a blank image; the service is not ready")

    async def _give_memory_back(self) -> None:
        """Once whenever there is nothing to do: what many large images took would stay with the process."""
        while True:
            await self._used.wait()
            while self._num_requests or any(batcher.is_busy for batcher in self._batchers.values()):
                await asyncio.sleep(_IDLE_SECONDS)
            self._used.clear()
            await asyncio.sleep(_IDLE_SECONDS)
            if not self._used.is_set():
                await self._in_thread(give_freed_memory_back)

    async def predict(self, request: Request) -> Response:
        """``POST /predict``."""
        self._check_key(request)
        if self._num_requests >= self.settings.max_queue:
            raise ServiceError(503, f"{self.settings.max_queue} requests are waiting; try again in a second")
        self._count(1)
        try:
            return _WholeAnswer(await self._predict(request), lambda: self._count(-1))
        except BaseException:
            self._count(-1)
            raise

    def _count(self, number: int) -> None:
        self._num_requests += number
        self._used.set()
        self.metrics.queue.inc(number)

    async def _predict(self, request: Request) -> Response:
        json_body, given = is_json(request), dict[str, Any](request.query_params)
        data = await read_body(request, self.settings)
        begin = perf_counter()
        try:
            async with asyncio.timeout(self.settings.timeout), AsyncExitStack() as stack:
                if json_body:
                    data, more = await self._in_thread(parse_json, data)
                    given |= more
                options = Options.parse(given, self.models, self.settings.min_score)
                batcher = self._batchers[options.model.name]
                with batcher.coming():
                    await stack.enter_async_context(batcher.room)
                    start = perf_counter()
                    limit, predictor = self.settings.max_pixels, options.model.predictor
                    image = await self._in_thread(decode_image, data, limit, predictor)
                decoding = perf_counter() - start
                if options.format == "decoded":
                    return Response(await self._in_thread(to_picture, image), media_type="image/jpeg")
                predicted = await _while_connected(request, batcher.predict(image))
                found = choose(predicted.result, options.score, options.classes)
                if options.format == "image":
                    picture = await self._in_thread(lambda: to_picture(found.draw()))
                    return Response(picture, media_type="image/jpeg")
                content = await self._in_thread(to_json, found, options.classes, options.masks)
                times = timing(predicted, decoding, perf_counter() - begin)
                return JSONResponse({"model": options.model.name, **content, "timing": times})
        except TimeoutError:
            raise ServiceError(504, f"there is no result after {self.settings.timeout:g} s; try again later") from None

    async def health(self, _: Request) -> Response:
        """``GET /health``."""
        return JSONResponse({"status": "ready" if self.ready else "starting"}, 200 if self.ready else 503)

    async def list_models(self, request: Request) -> Response:
        """``GET /models``."""
        self._check_key(request)
        scores = {"min_score": self.settings.min_score, "score": max(SCORE_THRESHOLD, self.settings.min_score)}
        limits = {"max_bytes": self.settings.max_bytes, "max_pixels": self.settings.max_pixels}
        models = [model.describe() for model in self.models]
        return JSONResponse({"models": models, **scores, **limits, "samples": len(self.samples)})

    async def sample(self, request: Request) -> Response:
        """``GET /samples/0``: an image that the page offers."""
        number = request.path_params["number"]
        if number >= len(self.samples):
            raise ServiceError(404, f"there are {len(self.samples)} samples")
        return FileResponse(self.samples[number])

    async def show_metrics(self, request: Request) -> Response:
        """``GET /metrics``."""
        self._check_key(request)
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    def _check_key(self, request: Request) -> None:
        key = self.settings.api_key
        if key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
            raise ServiceError(401, "this service needs its key: Authorization: Bearer KEY")

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def create_app(models: Sequence[ServedModel], settings: ServiceSettings, samples: Sequence[Path] = ()) -> Starlette:
    """The application for any ASGI server; its lifespan must be run. See ``Service`` for the arguments."""
    service = Service(models, settings, samples)
    document = openapi_document([model.name for model in models], settings)
    page, docs = demo_page(), docs_page(document)

    async def show_page(_: Request) -> Response:
        return Response(page.html, media_type="text/html", headers=PAGE_HEADERS | page.policy)

    async def show_docs(_: Request) -> Response:
        return Response(docs.html, media_type="text/html", headers=PAGE_HEADERS | docs.policy)

    async def show_openapi(_: Request) -> Response:
        return Response(json.dumps(document), media_type="application/json")

    routes = [
        Route("/", show_page),
        Route("/predict", service.predict, methods=["POST"]),
        Route("/models", service.list_models),
        Route("/samples/{number:int}", service.sample),
        Route("/health", service.health),
        Route("/metrics", service.show_metrics),
        Route("/docs", show_docs),
        Route("/openapi.json", show_openapi),
    ]
    counted = Middleware(_Counted, metrics=service.metrics, paths={route.path for route in routes})
    handlers: dict[Any, Any] = {ServiceError: _on_error, HTTPException: _on_http_error, Exception: _on_bug}
    return Starlette(routes=routes, middleware=[counted], exception_handlers=handlers, lifespan=service.lifespan)


def _predict(model: ServedModel) -> Callable[[list[Any]], Sequence[Any]]:
    return lambda images: model.predictor(images, batch_size=len(images))


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What it gives; it is cancelled when the client goes before, so that nothing is predicted for nobody."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.create_task(work), asyncio.create_task(disconnected())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():  # nobody reads this answer; it is counted
            raise ServiceError(400, "the connection was closed before the answer")
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


class _WholeAnswer(Response):
    """An answer that tells ``on_sent`` when all of it is sent: until then its request is in the queue, so that answers
    which nobody reads are bounded, too."""

    def __init__(self, answer: Response, on_sent: Callable[[], object]) -> None:
        super().__init__(answer.body, answer.status_code, media_type=answer.media_type)
        self._on_sent = on_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})  # the server takes it when the rest is sent
        finally:
            self._on_sent()


class _ErrorResponse(JSONResponse):
    """``{"error": ...}``. What was not read of the request's body is thrown away for a while before the connection
    closes: with unread bytes it would be reset, and many a client would not see the answer."""

    def __init__(self, request: Request, status: int, message: str, more: Mapping[str, str] | None = None) -> None:
        headers = {503: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"}}.get(status, {}) | dict(more or {})
        unread = request.method not in ("GET", "HEAD") and getattr(request.state, "unread", True)
        super().__init__({"error": printable(message)}, status, headers | ({"connection": "close"} if unread else {}))
        # Who asked whether to send the body will not send it now.
        self._lingers = unread and "expect" not in request.headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body, "more_body": self._lingers})
        if self._lingers:
            await _discard(receive)
            await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    try:
        async with asyncio.timeout(_LINGER):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    except (TimeoutError, RuntimeError):
        pass


async def _on_error(request: Request, error: ServiceError) -> Response:
    return _ErrorResponse(request, error.status, error.message)


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    """Of Starlette: no such path (404), or not with this method (405)."""
    what = f"{request.method} {request.url.path}: {error.detail}; GET /docs lists the operations"
    return _ErrorResponse(request, error.status_code, what, error.headers)


async def _on_bug(request: Request, error: Exception) -> Response:
    """Whatever else: the server logs its traceback, and the client learns what kind it is."""
    return _ErrorResponse(request, 500, f"the model failed: {type(error).__name__}: {one_line(error)}")


class _Counted:
    """Counts requests by path and status, and their seconds."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics, paths: set[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        begin = perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(path, message["status"]).inc()
                self._metrics.seconds.labels(path).observe(perf_counter() - begin)
            await send(message)

        await self._app(scope, receive, counted)
