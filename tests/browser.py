"""Pages in a headless Chromium, where the machine has one."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


def document_of(address: str, folder: Path, *flags: str, is_ours: bool = True) -> str:
    """The document at an address as it is once its scripts have run; the console of a page of ours must stay empty."""
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--no-first-run", "--disable-background-networking", f"--user-data-dir={folder / 'profile'}", *flags]
    ran = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True)
    assert not (is_ours and "CONSOLE" in ran.stderr)
    return ran.stdout


def measured_in_windows(page: Path, widths: Sequence[int], measure: str, folder: Path) -> list[dict[str, Any]]:
    """What an expression gives for a page in windows of some widths; in it, ``w`` is the window.

    A page must not be wider than its window, which is looked at here.
    """
    # In frames: a window of Chromium has at least 500 pixels.
    content = escape(page.read_text(encoding="utf-8"))
    frames = "".join(f'<iframe style="border: 0" width="{w}" height="900" srcdoc="{content}"></iframe>' for w in widths)
    script = f"const of = w => [w.innerWidth, w.document.documentElement.scrollWidth, {measure}];"
    script += "document.title = JSON.stringify([...document.querySelectorAll('iframe')].map(f => of(f.contentWindow)))"
    framed = folder / "framed.html"
    framed.write_text(f"<!doctype html><title></title>{frames}<script>onload = () => {{ {script} }}</script>")
    window = f"--window-size={sum(widths) + 100},900"
    shown = re.search("<title>(.+)</title>", document_of(framed.as_uri(), folder, window, "--hide-scrollbars"))
    assert shown is not None
    found = json.loads(shown[1])
    assert [inner for inner, *_ in found] == list(widths)
    assert all(scroll <= inner for inner, scroll, _ in found)
    return [measured for *_, measured in found]


class Page:
    """A page that is used as a person would: clicked, typed into, given files; by Chromium's DevTools protocol, over
    a pipe.

    Args:
        address: of the page.
        folder: for the browser's profile.
        width, height: of the window, pixels; touch and small screens are not simulated otherwise.
        dark: whether the system prefers dark pages.
    """

    def __init__(self, address: str, folder: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        (here, theirs), (answers, mine) = os.pipe(), os.pipe()
        # Chromium reads commands from descriptor 3 and writes to 4; a process of its own puts the pipes there.
        code = "import os, sys; a, b = os.dup(int(sys.argv[1])), os.dup(int(sys.argv[2])); "
        code += "[os.dup2(old, new) for old, new in zip(map(os.dup, (a, b)), (3, 4))]; "
        code += "os.execv(sys.argv[3], sys.argv[3:])"
        command = [sys.executable, "-c", code, str(here), str(mine), str(CHROMIUM), "--headless=new", "--no-sandbox"]
        command += ["--disable-gpu"]
        command += ["--no-first-run", "--disable-background-networking", "--remote-debugging-pipe", "--hide-scrollbars"]
        command += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        command += [f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self._browser = subprocess.Popen(command, pass_fds=(here, mine), stderr=subprocess.DEVNULL)
        os.close(here)
        os.close(mine)
        self._commands, self._answers = os.fdopen(theirs, "wb"), os.fdopen(answers, "rb")
        self._number, self._rest, self._session = 0, b"", ""
        self.messages: list[str] = []
        """What the page wrote to its console, and errors of its scripts."""
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.send("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._commands.close()
        self._browser.kill()
        self._browser.wait()
        self._answers.close()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a command of the protocol answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            while b"\0" not in self._rest:
                data = os.read(self._answers.fileno(), 1 << 16)
                assert data, "Chromium has ended"
                self._rest += data
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            if answer.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.messages.append(json.dumps(answer["params"])[:500])

    def value(self, expression: str) -> Any:
        """What an expression gives in the page; promises are awaited."""
        options = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        result = self.send("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(f"Boolean({condition})"):
            assert time.monotonic() < end, f"not within {seconds} s: {condition}; {self.messages}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of an element."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{place}.scrollIntoView({{block: 'center'}})")
        x, y = self.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({place}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int) -> None:
        """A key, by its name and number: Tab is 9, Enter 13, Escape 27, space 32."""
        text = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def choose_file(self, selector: str, file: Path) -> None:
        """What the dialog of a file input would do."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def picture(self, whole: bool = True) -> bytes:
        """The page as PNG, also what must be scrolled to."""
        return base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"])
