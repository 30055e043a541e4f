"""What every scheme of YOLO must hold; each scheme inherits ``SchemeContract`` and says how it is built."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from detseg.models.yolo.anchor import AnchorScheme
from detseg.models.yolo.grid import GridScheme
from detseg.models.yolo.scheme import PriorIndex, Scheme
from detseg.models.yolo.task_aligned import TaskAlignedAssigner, TaskAlignedScheme
from detseg.ops.boxes import matched_iou
from detseg.structures import BoxTargets
from tests.models.targets import box_targets

NUM_CLASSES = 3
HEIGHT, WIDTH = 64, 96


def raw_maps(scheme: Scheme, num_images: int, scale: float = 1.0, seed: int = 0) -> list[Tensor]:
    """Random raw maps for images of HEIGHT × WIDTH, around the initial biases."""
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for stride in scheme.strides:
        bias = scheme.initial_bias(stride)
        noise = torch.randn(num_images, len(bias), HEIGHT // stride, WIDTH // stride, generator=generator)
        maps.append((bias[:, None, None] + scale * noise).requires_grad_())
    return maps


TARGETS = [
    box_targets([(4, 4, 44, 40, 0, False), (60, 20, 90, 60, 2, False), (30, 45, 50, 62, 1, True)]),
    box_targets([(50, 6, 80, 30, 1, False), (2, 30, 30, 62, 0, False)]),
]


@st.composite
def targets_of_one_image(draw: st.DrawFn) -> BoxTargets:
    """Up to six boxes anywhere in the image, down to a hundredth of a pixel."""
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        x1, y1 = draw(st.floats(0, WIDTH - 0.5)), draw(st.floats(0, HEIGHT - 0.5))
        x2, y2 = draw(st.floats(x1 + 0.01, WIDTH)), draw(st.floats(y1 + 0.01, HEIGHT))
        rows.append((x1, y1, x2, y2, draw(st.integers(0, NUM_CLASSES - 1)), draw(st.booleans())))
    return box_targets(rows)


@pytest.mark.filterwarnings("ignore:several objects have their centre", "ignore:more objects have their centre")
class SchemeContract:
    """Inherit, call the class ``Test…`` and build the scheme for NUM_CLASSES classes; strides must divide 32."""

    learning_rate = 0.1
    """Of the overfit check."""

    def build(self) -> Scheme:
        raise NotImplementedError  # the tester of each implementation builds its own

    def test_has_one_bias_per_output_and_no_weights(self) -> None:
        scheme = self.build()
        assert isinstance(scheme, nn.Module)
        assert list(scheme.parameters()) == []
        for stride in scheme.strides:
            assert scheme.initial_bias(stride).shape == (scheme.box_outputs + scheme.class_outputs,)

    @pytest.mark.parametrize("scale", [1.0, 30.0])
    def test_decodes_to_finite_boxes_and_probabilities(self, scale: float) -> None:
        scheme = self.build()
        decoded = scheme.decode(raw_maps(scheme, 2, scale))
        boxes, scores = decoded.boxes, decoded.scores
        assert boxes.dtype == scores.dtype == torch.float32
        assert boxes.shape == (2, scores.shape[1], 4)
        assert scores.shape[2] == NUM_CLASSES
        assert boxes.isfinite().all()
        assert (boxes[..., :2] <= boxes[..., 2:]).all()
        assert ((scores >= 0) & (scores <= 1)).all()

    def test_decodes_each_image_by_itself(self) -> None:
        scheme = self.build()
        maps = raw_maps(scheme, 3)
        together = scheme.decode(maps)
        for i in range(3):
            alone = scheme.decode([m[i : i + 1] for m in maps])
            torch.testing.assert_close(together.boxes[i], alone.boxes[0])
            torch.testing.assert_close(together.scores[i], alone.scores[0])

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_indexed_priors_are_decoded_as_all_are(self, layout: torch.memory_format) -> None:
        scheme = self.build()
        maps = [m.detach().contiguous(memory_format=layout) for m in raw_maps(scheme, 3, scale=3.0)]
        everything = scheme.decode(maps)
        num_priors = everything.scores.shape[1]
        index = PriorIndex(torch.tensor([2, 0, 0, 1]), torch.tensor([0, num_priors - 1, num_priors // 2, 3]))
        some = scheme.decode(maps, index)
        torch.testing.assert_close(some.boxes, everything.boxes[index.image, index.prior])
        torch.testing.assert_close(some.scores, everything.scores[index.image, index.prior])
        nothing = scheme.decode(maps, PriorIndex(index.image[:0], index.prior[:0]))
        assert (nothing.boxes.shape, nothing.scores.shape) == ((0, 4), (0, NUM_CLASSES))

    @pytest.mark.parametrize("scale", [1.0, 30.0])
    def test_the_best_score_of_a_prior_is_that_of_its_best_class(self, scale: float) -> None:
        scheme = self.build()
        maps = [m.detach() for m in raw_maps(scheme, 2, scale)]
        torch.testing.assert_close(
            scheme.best_scores(maps), scheme.decode(maps).scores.amax(dim=2), rtol=5e-7, atol=1e-30
        )

    @pytest.mark.parametrize(
        "targets",
        [
            [BoxTargets.empty(), BoxTargets.empty()],
            [BoxTargets.empty(), box_targets([(4, 4, 44, 40, 0, True)])],
            [BoxTargets.empty(), TARGETS[1]],
        ],
        ids=["none", "only ignored", "one image empty"],
    )
    def test_terms_are_scalars_with_gradient_whatever_the_targets(self, targets: list[BoxTargets]) -> None:
        scheme = self.build()
        maps = raw_maps(scheme, 2)
        terms = scheme.losses(maps, targets)
        assert set(terms) == set(scheme.losses(raw_maps(scheme, 2), TARGETS))
        for name, term in terms.items():
            assert term.shape == (), name
            assert term.isfinite(), name
            assert term >= 0, name
            assert term.requires_grad, name
        torch.autograd.backward(list(terms.values()))
        for m in maps:
            assert m.grad is not None
            assert m.grad.isfinite().all()
            assert m.grad.abs().sum() > 0

    def test_losses_do_not_depend_on_the_order_of_images_or_objects(self) -> None:
        scheme = self.build()
        maps = raw_maps(scheme, 2)
        flipped = [BoxTargets(t.boxes.flip(0), t.labels.flip(0), t.ignore.flip(0)) for t in reversed(TARGETS)]
        one, other = scheme.losses(maps, TARGETS), scheme.losses([m.flip(0) for m in maps], flipped)
        for name in one:
            torch.testing.assert_close(one[name], other[name])

    def test_ignored_objects_are_not_learned(self) -> None:
        """Their class does not matter, and the score where they are is not pushed up."""
        scheme = self.build()
        maps = raw_maps(scheme, 1)
        terms = [scheme.losses(maps, [box_targets([(4, 4, 44, 40, label, True)])]) for label in (0, 2)]
        for name in terms[0]:
            torch.testing.assert_close(terms[0][name], terms[1][name])
        before = scheme.decode(maps).scores
        total = torch.stack(list(terms[0].values())).sum()
        stepped = [m - 1e-3 * g for m, g in zip(maps, torch.autograd.grad(total, maps), strict=True)]
        assert (scheme.decode(stepped).scores.sum(dim=2) <= before.sum(dim=2) + 1e-6).all()

    # The executors differ on purpose: each inheriting class is one.
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(targets=st.lists(targets_of_one_image(), min_size=2, max_size=2), scale=st.sampled_from([0.1, 3.0, 30.0]))
    def test_any_boxes_give_finite_losses_and_gradients(self, targets: list[BoxTargets], scale: float) -> None:
        scheme = self.build()
        maps = raw_maps(scheme, 2, scale)
        terms = scheme.losses(maps, targets)
        assert all(term.isfinite() and term >= 0 for term in terms.values()), terms
        torch.autograd.backward(list(terms.values()))
        assert all(m.grad is not None and m.grad.isfinite().all() for m in maps)

    def test_free_maps_learn_the_targets(self) -> None:
        """Minimising the losses over the maps themselves ends with the best box of each class on its object."""
        scheme = self.build()
        maps = raw_maps(scheme, 2, scale=0.1)
        optimizer = torch.optim.Adam(maps, lr=self.learning_rate)
        for _ in range(200):
            optimizer.zero_grad()
            torch.autograd.backward(list(scheme.losses(maps, TARGETS).values()))
            optimizer.step()
        with torch.no_grad():
            decoded = scheme.decode(maps)
            boxes, scores = decoded.boxes, decoded.scores
        for image, target in enumerate(TARGETS):
            for box, label in zip(target.boxes[~target.ignore], target.labels[~target.ignore].tolist(), strict=True):
                best = scores[image, :, label].argmax()
                assert scores[image, best, label] > 0.7
                assert scores[image, best].argmax() == label
                assert matched_iou(boxes[image, best], box) > 0.9


class TestGridScheme(SchemeContract):
    def build(self) -> Scheme:
        return GridScheme(NUM_CLASSES, stride=16, boxes_per_cell=2)


class TestAnchorScheme(SchemeContract):
    def build(self) -> Scheme:
        return AnchorScheme(NUM_CLASSES, (16, 32), [[(10, 12), (24, 16)], [(30, 32), (48, 40)]])


class TestTaskAlignedScheme(SchemeContract):
    def build(self) -> Scheme:
        return TaskAlignedScheme(NUM_CLASSES, (8, 16, 32), TaskAlignedAssigner())
