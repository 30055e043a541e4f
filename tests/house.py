"""The rules of the house as functions: each reads source files and returns its violations, one line each.

``test_house.py`` applies them to the project, and proves on small wrong files that each can fail.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

FOUNDATION = {"atomic_write", "errors", "messages", "ops", "structures"}
EVERYTHING = FOUNDATION | {"checkpoint", "config", "data", "draw", "factory", "memory", "metrics", "models", "predict"}
EVERYTHING |= {"training"}

ALLOWED: dict[str, set[str]] = {
    "atomic_write": {"errors"},
    "errors": set(),
    "messages": set(),
    "ops": set(),
    "structures": {"ops"},  # letterboxes travel in a batch
    "draw": FOUNDATION,
    "checkpoint": FOUNDATION | {"config"},  # old names of settings
    "config": {"errors", "messages"},
    "memory": FOUNDATION,
    "models": FOUNDATION,
    "data": FOUNDATION | {"config", "draw"},  # a check's page
    "metrics": {"errors", "messages", "ops", "structures"},
    # Rank and number of processes are known once Lightning runs, so its data module opens the loaders.
    "training": EVERYTHING - {"predict"} | {"tasks"},
    "tasks": EVERYTHING - {"checkpoint", "memory", "training"},
    "factory": FOUNDATION | {"checkpoint", "config", "models"},
    # A Predictor decodes images by the reader of the data sets, or its pixels would not be the same.
    "predict": FOUNDATION | {"checkpoint", "config", "data", "draw", "factory", "memory", "models", "tasks"},
    "benchmark": EVERYTHING | {"tasks"},
    "tuning": EVERYTHING | {"benchmark", "tasks"},
    "evaluation": EVERYTHING - {"training"} | {"tasks"},
    "explain": EVERYTHING - {"training"} | {"evaluation", "tasks"},
    "export": EVERYTHING - {"training"} | {"evaluation", "tasks"},
    "serve": FOUNDATION | {"data", "draw", "memory", "predict", "__init__"},  # the version
    "__init__": {"data", "errors", "evaluation", "factory", "predict", "structures", "training", "tuning"},
    # `detseg check` asks the model of a configuration what it expects of the data: anchors, normalisation;
    # `detseg show` draws what a kind of model learns from.
    "cli": FOUNDATION
    | {
        "benchmark",
        "checkpoint",
        "config",
        "data",
        "draw",
        "evaluation",
        "explain",
        "export",
        "factory",
        "memory",
        "metrics",
        "models",
        "predict",
        "tasks",
    }
    | {"serve", "training", "tuning"},
    "__main__": {"cli"},
    "tools": {"cli"},
}
"""Part of the project → the parts that it may import.  A part is a file or folder directly under detseg/, or tools/."""

ONLY_IN: dict[str, tuple[str, ...]] = {
    "lightning": ("detseg/training/",),
    **dict.fromkeys(("mlflow", "wandb"), ("detseg/training/tracking/services.py",)),
    "albumentations": ("detseg/data/augment/albumentations_steps.py",),
    "pycocotools": ("detseg/metrics/coco.py", "detseg/data/annotations/model.py", "tools/real_sets.py"),
    "msgspec": (
        "detseg/data/formats/coco.py",
        "detseg/data/formats/recognise/",
        "detseg/data/annotations/model.py",
        "detseg/evaluation/results_file.py",
    ),
    **dict.fromkeys(("optuna", "sqlalchemy"), ("detseg/tuning/",)),
    **dict.fromkeys(("starlette", "uvicorn", "h11", "prometheus_client"), ("detseg/serve/",)),
    "onnxruntime": ("detseg/predict/runtime/engines.py",),
    "openvino": ("detseg/predict/runtime/engines.py", "detseg/export/files.py"),
    **dict.fromkeys(("onnx", "nncf"), ("detseg/export/files.py",)),
    "simplejpeg": ("detseg/data/images/read.py",),
    **dict.fromkeys(("IPython", "pandas"), ("detseg/predict/results.py",)),
    "supervision": ("detseg/predict/results.py", "detseg/predict/video/tracks.py"),
    "trackers": ("detseg/predict/video/tracks.py",),
}
"""Library → the files and folders that may import it."""

REACHES_OUT: dict[str, tuple[str, ...]] = {
    # What a user asks for by data.download or a published weights file; torchvision and timm fetch the latter.
    # Or by the address of an image, with --allow-network.
    "urllib.request": ("detseg/data/download.py", "detseg/data/images/sources.py"),
    "urllib.error": ("detseg/data/download.py",),
    "http": ("detseg/data/download.py", "detseg/data/images/sources.py"),
    # The demo types our own commands; SLURM is asked to requeue; git says the commit.
    "subprocess": ("tools/demo.py", "detseg/cli/signals.py", "detseg/checkpoint/provenance.py"),
    "wandb": ("detseg/training/tracking/services.py",),  # where the user asks for it
    "socket": ("detseg/serve/server.py",),  # listens, where the user asks for it
    "webbrowser": ("detseg/cli/deploy/serve.py",),  # shows the user's own service
    **dict.fromkeys(("socketserver", "ssl", "ftplib", "smtplib", "xmlrpc", "telnetlib"), ()),
    **dict.fromkeys(("requests", "httpx", "aiohttp", "urllib3", "gdown", "wget", "boto3"), ()),
    **dict.fromkeys(("pip", "ensurepip", "sentry_sdk", "posthog", "segment"), ()),
}
"""Module that opens connections, starts programs, installs, or reports use → the files that may import it."""

ALLOWED_IN_DATA: dict[str, set[str]] = {
    "annotations": set(),
    "images": {"annotations"},  # what is missing goes into the report
    "datasets": {"annotations", "images"},
    "formats": {"annotations", "images", "datasets"},
    "checks": {"annotations", "images", "datasets"},
    "shapes": {"formats"},
    "download": {"formats"},
    "augment": set(),
    "loading": {"datasets", "augment"},
    "splits": {"annotations", "datasets", "images"},
    "split_files": {"datasets", "images"},  # which files are of the set
    "build": {"annotations", "datasets", "formats", "shapes", "download", "splits", "split_files"},
    "__init__": set(),
}
"""Folder or file of detseg/data → the others there that it may import."""

READS_CONFIG_IN_DATA = {"build", "augment", "loading"}
"""Where detseg/data may import settings; augment and loading take one section of them whole, as a value."""

FEWEST_ENTRIES, MOST_ENTRIES = 3, 12
MAY_BE_LARGER = {"detseg": 25}
"""Folders with more entries than `MOST_ENTRIES`, with the number that they may have."""

MAY_BE_SMALLER = {"detseg/structures"}
"""Folders with fewer entries than `FEWEST_ENTRIES`: arrays and tensors."""

BANNED_NAMES = {"util", "utils", "common", "helper", "helpers", "misc"}
BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BANNED_CALLS = {"eval", "exec", "__import__", "builtins.eval", "builtins.exec", "importlib.import_module"}
PROGRAM_CALLS = re.compile(
    r"os\.(system|popen|startfile|exec\w+|spawn\w+|posix_spawn\w*)|torch\.hub\.(load\w*|download\w*)"
)


def python_files(root: Path, *folders: str) -> list[Path]:
    """Every Python file under the given folders of ``root``, sorted."""
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def imports(root: Path, path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that a file imports, at the top or inside functions; relative names resolved."""
    package = list(path.relative_to(root).with_suffix("").parts[:-1])
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # the name may be a module itself: from detseg import draw
                yield node.lineno, f"{module}.{alias.name}"


def import_direction(root: Path) -> list[str]:
    """Imports between parts of the project that ALLOWED does not list, and parts without a rule."""
    found = []
    for path in python_files(root, "detseg", "tools"):
        parts = path.relative_to(root).with_suffix("").parts
        part = "tools" if parts[0] == "tools" else parts[1]
        if part not in ALLOWED:
            found.append(f"{_where(root, path)}: the part {part!r} has no rule; add it to ALLOWED in tests/house.py")
            continue
        for line, name in imports(root, path):
            target = _part_of(root, name)
            if target is not None and target not in {part, *ALLOWED[part]}:
                found.append(f"{_where(root, path)}:{line}: {part} must not import {target} ({name})")
    return found


def import_direction_in_data(root: Path) -> list[str]:
    """Imports between the folders of detseg/data that ALLOWED_IN_DATA does not list."""
    found = []
    for path in python_files(root, "detseg/data"):
        part = path.relative_to(root / "detseg" / "data").with_suffix("").parts[0]
        for line, name in imports(root, path):
            parts = name.split(".")
            if parts[:2] == ["detseg", "config"] and part not in READS_CONFIG_IN_DATA:
                found.append(f"{_where(root, path)}:{line}: data/{part} must not import settings")
            if parts[:2] != ["detseg", "data"] or len(parts) < 3:
                continue
            if parts[2] not in {part, *ALLOWED_IN_DATA.get(part, ())}:
                found.append(f"{_where(root, path)}:{line}: data/{part} must not import data/{parts[2]}")
    return found


def import_circles(root: Path) -> list[str]:
    """Files that import each other in a circle, imports inside functions and for type checking included."""
    files = {path: _imported_files(root, path) for path in python_files(root, "detseg")}
    return [f"{' ⇄ '.join(sorted(_where(root, path) for path in circle))}: in a circle" for circle in _circles(files)]


def _imported_files(root: Path, path: Path) -> set[Path]:
    """The files of the package that a file imports: `from a import b` is a/b.py where there is one, else a."""
    found = set()
    for _, name in imports(root, path):
        parts = name.split(".")
        for end in (len(parts), len(parts) - 1):
            base = root.joinpath(*parts[:end])
            target = next((c for c in (base.with_suffix(".py"), base / "__init__.py") if c.exists()), None)
            if parts[0] == "detseg" and target is not None:
                found.add(target)
                break
    return found - {path}


def _circles(graph: dict[Path, set[Path]]) -> list[set[Path]]:
    """The strongly connected parts of a graph that have more than one node: what each node reaches that reaches it."""
    reached: dict[Path, set[Path]] = {}
    for start in graph:
        seen: set[Path] = set()
        waiting = [start]
        while waiting:
            for target in graph.get(waiting.pop(), set()) - seen:
                seen.add(target)
                waiting.append(target)
        reached[start] = seen
    circles: list[set[Path]] = []
    for node in graph:
        if node in reached[node] and not any(node in circle for circle in circles):
            circles.append({other for other in reached[node] if node in reached[other]})
    return circles


def folder_sizes(root: Path) -> list[str]:
    """Folders of the package with more than `MOST_ENTRIES` files and folders, or with fewer than `FEWEST_ENTRIES`;
    `__init__.py` does not count."""
    found = []
    for folder in sorted({path.parent for path in python_files(root, "detseg")}):
        entries = {path.relative_to(folder).parts[0] for path in folder.rglob("*.py")} - {"__init__.py"}
        where = _where(root, folder)
        if len(entries) > MAY_BE_LARGER.get(where, MOST_ENTRIES):
            found.append(f"{where}: {len(entries)} entries, at most {MAY_BE_LARGER.get(where, MOST_ENTRIES)}")
        if (folder / "__init__.py").exists() and len(entries) < FEWEST_ENTRIES and where not in MAY_BE_SMALLER:
            found.append(f"{where}/__init__.py: a folder of {len(entries)} entries, at least {FEWEST_ENTRIES} wanted")
    return found


def library_borders(root: Path) -> list[str]:
    """Imports of a library outside the files that ONLY_IN gives it; torch in config, which must load without it."""
    found = []
    for path in python_files(root, "detseg", "tools"):
        where = _where(root, path)
        for line, name in imports(root, path):
            library = name.split(".")[0]
            library = {"pytorch_lightning": "lightning", "lightning_fabric": "lightning"}.get(library, library)
            if library in ONLY_IN and not where.startswith(ONLY_IN[library]):
                found.append(f"{where}:{line}: {library} is imported outside {' and '.join(ONLY_IN[library])}")
            if library in {"torch", "torchvision"} and where.startswith(
                ("detseg/config/", "detseg/errors.py", "detseg/messages.py", "detseg/predict/results.py")
            ):
                found.append(f"{where}:{line}: {library} is imported where wrong settings are reported before it loads")
    return found


def sizes(root: Path) -> list[str]:
    """Files of more than 600 lines and functions of 60 lines or more."""
    found = []
    for path in python_files(root, "detseg", "tools", "benchmarks", "tests"):
        num_lines = len(path.read_text(encoding="utf-8").splitlines())
        if num_lines > 600:
            found.append(f"{_where(root, path)}: {num_lines} lines, at most 600")
        for node in ast.walk(_parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length >= 60:
                    found.append(f"{_where(root, path)}:{node.lineno}: {node.name} has {length} lines, under 60 wanted")
    return found


def names(root: Path) -> list[str]:
    """Modules and folders whose name says nothing: utils, common, helpers, misc, alone or as one word of the name."""
    found = []
    for path in python_files(root, "detseg", "tools", "benchmarks", "tests"):
        for part in path.relative_to(root).with_suffix("").parts:
            if BANNED_NAMES & set(part.lower().split("_")):
                found.append(f"{_where(root, path)}: {part!r} says nothing about what is in it")
    return found


def dangerous_calls(root: Path) -> list[str]:
    """Ways to run code out of data: eval, exec, imports by string, pickle, and loaders that unpickle."""
    found = []
    for path in python_files(root, "detseg", "tools"):
        where = _where(root, path)
        for line, name in imports(root, path):
            if name.split(".")[0] in BANNED_MODULES or name in {"torch.load", "importlib.import_module"}:
                found.append(f"{where}:{line}: {name} is imported")
        for node in ast.walk(_parse(path)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            keywords = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            if called in BANNED_CALLS:
                found.append(f"{where}:{node.lineno}: {called}() is called")
            if called == "torch.load" and keywords.get("weights_only") is not True:
                found.append(f"{where}:{node.lineno}: torch.load() without weights_only=True")
            if any(k.arg == "allow_pickle" for k in node.keywords) and keywords.get("allow_pickle") is not False:
                found.append(f"{where}:{node.lineno}: {called}() with allow_pickle")
    return found


def reaches_out(root: Path) -> list[str]:
    """Imports of modules that open connections, start programs, install packages or report use, and calls that do so,
    outside the files that REACHES_OUT gives them."""
    found = []
    for path in python_files(root, "detseg", "tools"):
        where = _where(root, path)
        for line, name in imports(root, path):
            module = next((key for key in REACHES_OUT if f"{name}.".startswith(f"{key}.")), None)
            if module is not None and where not in REACHES_OUT[module]:
                found.append(f"{where}:{line}: {module} is imported, which only {REACHES_OUT[module] or 'nobody'} may")
        calls = ((node.lineno, ast.unparse(node.func)) for node in ast.walk(_parse(path)) if isinstance(node, ast.Call))
        found += [f"{where}:{line}: {call}() is called" for line, call in calls if PROGRAM_CALLS.fullmatch(call)]
    return found


def private_names(root: Path) -> list[str]:
    """Names with one underscore in front that belong to a module that is not ours (``os._exit`` may be called)."""
    found = []
    for path in python_files(root, "detseg", "tools"):
        where, module = _where(root, path), _parse(path)
        foreign = [(line, name) for line, name in imports(root, path) if not name.startswith(("detseg", "tools"))]
        found += [f"{where}:{line}: {name} is private" for line, name in foreign if "._" in name.replace("__", "")]
        nodes = [node for node in ast.walk(module) if isinstance(node, ast.Import | ast.ImportFrom)]
        nodes = [node for node in nodes if not (getattr(node, "module", "") or "").startswith("detseg")]
        bound = {(alias.asname or alias.name).split(".")[0] for node in nodes for alias in node.names}
        for node in ast.walk(module):
            if isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
                called = ast.unparse(node)
                if called.split(".")[0] in bound and called != "os._exit":
                    found.append(f"{where}:{node.lineno}: {called} is private")
    return found


def silenced_checks(root: Path) -> list[str]:
    """Comments that silence mypy or ruff without a code, or without a reason after it."""
    found = []
    wanted = re.compile(r"#\s*(?:type:\s*ignore\[[\w\-, ]+\]|noqa:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)\s*[#–—-]\s*\w{2,}")
    for path in python_files(root, "detseg", "tools", "benchmarks", "tests"):
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
            silences = token.type == tokenize.COMMENT and re.search(
                r"#\s*(type:\s*ignore|noqa|ruff:|mypy:)", token.string
            )
            if silences and not wanted.search(token.string):
                where = f"{_where(root, path)}:{token.start[0]}"
                found.append(f"{where}: {token.string!r} needs a code and a reason: '# … [code]  # why it is right'")
    return found


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _where(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _part_of(root: Path, name: str) -> str | None:
    """The part of the project that a dotted name lies in; None for libraries."""
    first, *rest = name.split(".")
    if first == "tools":
        return "tools"
    if first != "detseg":
        return None
    # `from detseg import Predictor` names no file: that is the package itself.
    is_part = bool(rest) and ((root / "detseg" / rest[0]).is_dir() or (root / "detseg" / f"{rest[0]}.py").exists())
    return rest[0] if is_part else "__init__"
