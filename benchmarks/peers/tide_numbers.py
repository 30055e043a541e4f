"""Writes what the package ``tidecv`` finds in the cases of tests/metrics/test_error_kinds.py, which compares with it.

    pip install tidecv && python -m benchmarks.peers.tide_numbers

Not part of the tests, since it needs seaborn, pandas and OpenCV.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from tidecv import TIDE, datasets

from tests.metrics.test_error_kinds import CASES, NUMBERS, as_files


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: numbers_of(*as_files(case, Path(folder)), "mask" in name) for name, case in CASES.items()}
    NUMBERS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def numbers_of(truth: Path, results: Path, masks: bool) -> dict[str, Any]:
    """AP50 and gains in percent, and counts, by TIDE's names."""
    with contextlib.redirect_stdout(io.StringIO()):
        tide = TIDE(mode=TIDE.MASK if masks else TIDE.BOX)
        run = tide.evaluate(datasets.COCO(str(truth)), datasets.COCOResult(str(results)), name="run")
        gains = tide.get_all_errors()
    counts = {kind.short_name: len(errors) for kind, errors in run.error_dict.items()}
    return {"AP50": run.ap, "gains": gains["main"]["run"] | gains["special"]["run"], "counts": counts}


if __name__ == "__main__":
    main()
