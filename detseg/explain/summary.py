"""The misses of a split together: how many each stage lost, and what to try first."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from detseg.draw.page import html_table, html_text
from detseg.explain.advice import Adviser, Setting
from detseg.explain.misses import FAINT_SCORE, SMALL_SIDE, Cause, Miss
from detseg.messages import counted
from detseg.metrics.interface import new_table

if TYPE_CHECKING:
    from rich.console import RenderableType

_NUM_IMAGES = 3  # that are named
_PRICE = "a lower score lets more wrong detections through, too: detseg report shows how many"

_SAYS = {
    Cause.CUT: "have a box that is over the limit of detections",
    Cause.SUPPRESSED: "have a box that NMS drops for a better one",
    Cause.SHARED: "share their box with a neighbour, which has it",
    Cause.CONFUSED: "are found as another class",
    Cause.SMALL: f"are below {SMALL_SIDE} px after resizing",
    Cause.LOW_SCORE: "have a box that scores below {threshold:g}",
    Cause.MISPLACED: "have a box of their class beside them, at an IoU below 0.5",
    Cause.PROPOSAL_NMS: "have a proposal that NMS drops for a better one",
    Cause.PROPOSAL_CUT: "have a proposal that is over the limit",
    Cause.ANCHOR_CUT: "have an anchor that is over the limit of its level",
    Cause.NO_ANCHOR: "have a size or shape that no anchor fits",
    Cause.NOT_PROPOSED: "are not proposed, though anchors fit them",
    Cause.UNASSIGNED: "would have no prior in training",
    Cause.UNSEEN: f"have no box that scores {FAINT_SCORE}",
}
"""What "38 % of the misses" do."""


@dataclass(frozen=True)
class CauseCount:
    """The misses of one cause.

    Attributes:
        cause: the cause.
        count: of misses.
        fraction: of all misses.
        sentence: the same in words.
        setting: to try against them.
    """

    cause: Cause
    count: int
    fraction: float
    sentence: str
    setting: Setting


@dataclass(frozen=True, eq=False)
class MissSummary:
    """What became of the objects of a split.

    Attributes:
        num_images: of the split.
        num_objects: annotated ones that count.
        score_threshold: from which on detections count.
        misses: each with the file of its image.
        causes: of the misses, the most frequent first.
    """

    num_images: int
    num_objects: int
    score_threshold: float
    misses: tuple[tuple[str, Miss], ...]
    causes: tuple[CauseCount, ...]

    @classmethod
    def of(
        cls,
        num_images: int,
        num_objects: int,
        score_threshold: float,
        misses: tuple[tuple[str, Miss], ...],
        adviser: Adviser,
    ) -> MissSummary:
        """Sum up; the adviser knows what to try."""
        causes = []
        for cause in Cause:
            of_cause = [miss for _, miss in misses if miss.cause is cause]
            if not of_cause:
                continue
            fraction = len(of_cause) / len(misses)
            says = _SAYS[cause].format(threshold=score_threshold)
            sentence = f"{100 * fraction:.0f} % of the misses {says}"
            causes.append(CauseCount(cause, len(of_cause), fraction, sentence, adviser.setting(of_cause)))
        causes.sort(key=lambda row: -row.count)
        return cls(num_images, num_objects, score_threshold, misses, tuple(causes))

    @property
    def recommended(self) -> Setting | None:
        """What to try first: against the most frequent cause; None without misses."""
        return self.causes[0].setting if self.causes else None

    def table(self) -> RenderableType:
        """Causes with their counts, for the screen, 80 columns wide."""
        table = new_table("Why objects were missed", ("misses", "of all"), of="cause")
        table.add_column("try")
        for row in self.causes:
            table.add_row(row.cause, str(row.count), f"{100 * row.fraction:.0f} %", str(row.setting))
        return table

    def html(self) -> str:
        """The same for a page."""
        rows = [(row.cause, str(row.count), f"{100 * row.fraction:.0f} %", str(row.setting)) for row in self.causes]
        table = html_table(("cause", "misses", "of all", "try"), rows) if rows else ""
        return table + "".join(f"<p>{html_text(line)}.</p>" for line in self.lines())

    def lines(self) -> list[str]:
        """What stands below the table."""
        num, images = len(self.misses), counted(self.num_images, "image")
        where = f"{num} of {counted(self.num_objects, 'object')} in {images}"
        if not self.causes:
            return [f"missed with a score of {self.score_threshold:g}: {where}"]
        costs = str(self.causes[0].setting).startswith("--score")
        worst = Counter(path for path, _ in self.misses).most_common(_NUM_IMAGES)
        return [
            f"missed with a score of {self.score_threshold:g}: {where}; most in "
            + ", ".join(f"{path} ({count})" for path, count in worst),
            f"{self.causes[0].sentence}; try {self.causes[0].setting}",
            *([_PRICE] if costs else []),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return {
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            "num_missed": len(self.misses),
            "score_threshold": self.score_threshold,
            "recommended": None if self.recommended is None else str(self.recommended),
            "causes": [asdict(row) | {"setting": str(row.setting)} for row in self.causes],
            "misses": [{"image": path, **asdict(miss)} for path, miss in self.misses],
        }
