"""Answers requests of a benchmark, one JSON line each, from the environment in which a peer is installed.

A worker of this folder is run by that environment's Python.  It maps names to functions; each takes the request's
arguments and returns plain data, as a rule the seconds that a block took.  What peers print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any


def serve(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Answer until standard input ends; an error of a function is handed on as a line of text.

    Args:
        functions: what may be asked for, by name.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": functions[request.pop("do")](**request)}
        except Exception as error:  # whatever a peer raises, the benchmark shall say it and end
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
