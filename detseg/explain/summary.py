"""The misses of a split together: how many each stage lost, and what to try first."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from detseg.draw.page import html_table, html_text
from detseg.explain.advice import SCORE_OPTION, Adviser, Setting
from detseg.explain.misses import FAINT_SCORE, SMALL_SIDE, Cause, Miss
from detseg.messages import counted
from detseg.metrics.interface import new_table
from detseg.structures import FloatArray

if TYPE_CHECKING:
    from rich.console import RenderableType

_NUM_IMAGES = 3  # that are named
_SCORES: FloatArray = np.arange(1, 100) / 100  # among which the best is looked for

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


@dataclass(frozen=True)
class LowerScore:
    """What a lower ``--score`` changes: detections of all classes, by COCO's matching at an IoU of 0.5.

    Attributes:
        score: to try: the best one, where it is lower than now; else one that lets half of the misses through.
        found: objects that are found more.
        wrong: detections that are wrong, more.
        f1: now, and with it.
        best: the score of the best F1 of all that were looked at, and that F1.
    """

    score: float
    found: int
    wrong: int
    f1: tuple[float, float]
    best: tuple[float, float]

    @classmethod
    def of(
        cls, now: float, half: float, right: FloatArray, wrong: FloatArray, num_objects: int, least: float
    ) -> LowerScore:
        """Instead of ``now``, of the (R,) and (W,) scores of right and wrong detections from ``least`` on; at ``half``
        a half of the misses are found."""

        def f1(threshold: float) -> float:
            kept = [np.count_nonzero(scores >= threshold) for scores in (right, wrong)]
            return float(2 * kept[0] / max(sum(kept) + num_objects, 1))

        highest, best = max((f1(one), one) for one in _SCORES[least <= _SCORES].tolist())
        score = best if best < now and highest > f1(now) else half
        more = [int(np.count_nonzero((scores >= score) & (scores < now))) for scores in (right, wrong)]
        return cls(score, more[0], more[1], (f1(now), f1(score)), (best, highest))

    @property
    def pays(self) -> bool:
        """Whether F1 rises."""
        return self.f1[1] > self.f1[0]

    @property
    def sentence(self) -> str:
        """What it brings and costs."""
        now, then = self.f1
        finds = f"finds {counted(self.found, 'object')} more, with {counted(self.wrong, 'wrong detection')} more"
        best = "" if self.score == self.best[0] else f"; the best is {self.best[1]:.3f}, at {self.best[0]:.2f}"
        return f"--score {self.score:.2f} {finds}: F1 {now:.3f} now, {then:.3f} then{best}"


@dataclass(frozen=True, eq=False)
class MissSummary:
    """What became of the objects of a split.

    Attributes:
        num_images: of the split.
        num_objects: annotated ones that count.
        score_threshold: from which on detections count.
        misses: each with the file of its image.
        causes: of the misses, the most frequent first.
        lower_score: what the score to try against low scores would change; None: there are none.
    """

    num_images: int
    num_objects: int
    score_threshold: float
    misses: tuple[tuple[str, Miss], ...]
    causes: tuple[CauseCount, ...]
    lower_score: LowerScore | None = None

    @classmethod
    def of(
        cls,
        num_images: int,
        num_objects: int,
        score_threshold: float,
        misses: tuple[tuple[str, Miss], ...],
        adviser: Adviser,
        right: FloatArray,
        wrong: FloatArray,
    ) -> MissSummary:
        """Sum up; the adviser knows what to try, ``right`` and ``wrong`` are as of ``ImageMisses``, of all images."""
        causes, lower = list[CauseCount](), None
        for cause in Cause:
            of_cause = [miss for _, miss in misses if miss.cause is cause]
            if not of_cause:
                continue
            fraction = len(of_cause) / len(misses)
            says = _SAYS[cause].format(threshold=score_threshold)
            sentence = f"{100 * fraction:.0f} % of the misses {says}"
            setting = adviser.setting(of_cause)
            if setting.name == SCORE_OPTION:
                least = min(score_threshold, FAINT_SCORE)
                lower = LowerScore.of(score_threshold, setting.value, right, wrong, num_objects, least)
                setting = replace(setting, value=lower.score)
            causes.append(CauseCount(cause, len(of_cause), fraction, sentence, setting))
        causes.sort(key=lambda row: -row.count)
        return cls(num_images, num_objects, score_threshold, misses, tuple(causes), lower)

    @property
    def first(self) -> CauseCount | None:
        """The most frequent cause against which something helps: a lower score only if F1 rises; None: there is
        none."""
        return next((row for row in self.causes if not self._only_costs(row)), None)

    @property
    def recommended(self) -> Setting | None:
        """What to try first."""
        return None if self.first is None else self.first.setting

    def _only_costs(self, row: CauseCount) -> bool:
        return row.setting.name == SCORE_OPTION and self.lower_score is not None and not self.lower_score.pays

    def _rows(self) -> list[tuple[str, str, str, str]]:
        return [
            (
                row.cause,
                str(row.count),
                f"{100 * row.fraction:.0f} %",
                f"{row.setting}{' (lowers F1)' if self._only_costs(row) else ''}",
            )
            for row in self.causes
        ]

    def table(self) -> RenderableType:
        """Causes with their counts, for the screen, 80 columns wide."""
        table = new_table("Why objects were missed", ("misses", "of all"), of="cause")
        table.add_column("try", overflow="fold")
        for row in self._rows():
            table.add_row(*row)
        return table

    def html(self) -> str:
        """The same for a page."""
        rows = self._rows()
        table = html_table(("cause", "misses", "of all", "try"), rows) if rows else ""
        rules = (
            f"<p>Counted as detseg predict shows boxes: every class from a score of {self.score_threshold:g} on, by "
            "COCO's matching at an IoU of 0.5. The rest of the page takes each class at its own best threshold, goes "
            "by VOC's rule, and compares masks where there are some: it misses another number of objects.</p>"
        )
        return rules + table + "".join(f"<p>{html_text(line)}.</p>" for line in self.lines())

    def lines(self) -> list[str]:
        """What stands below the table."""
        num, images = len(self.misses), counted(self.num_images, "image")
        where = f"{num} of {counted(self.num_objects, 'object')} in {images}"
        if not self.causes:
            return [f"missed with a score of {self.score_threshold:g}: {where}"]
        worst = Counter(path for path, _ in self.misses).most_common(_NUM_IMAGES)
        return [
            f"missed with a score of {self.score_threshold:g}: {where}; most in "
            + ", ".join(f"{path} ({count})" for path, count in worst),
            *([f"{self.first.sentence}; try {self.first.setting}"] if self.first is not None else []),
            *([self.lower_score.sentence] if self.lower_score is not None else []),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return {
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            "num_missed": len(self.misses),
            "score_threshold": self.score_threshold,
            "recommended": None if self.recommended is None else str(self.recommended),
            "lower_score": None if self.lower_score is None else asdict(self.lower_score),
            "causes": [asdict(row) | {"setting": str(row.setting)} for row in self.causes],
            "misses": [{"image": path, **asdict(miss)} for path, miss in self.misses],
        }
