"""Which settings take less memory when they are lower, the one that costs least first."""

from __future__ import annotations

from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.rcnn import FasterRcnnConfig, MaskRcnnConfig

_BY_OBJECTS = ("mosaic", "mixup")
"""Augmentations that put the objects of several images into one."""


def training_advice(config: ExperimentConfig, computes_float32: bool) -> str:
    """What to lower in a training, and what a resumed run may and may not change.

    Args:
        config: the settings of the run.
        computes_float32: the training computes in float32, so that bfloat16 would take less.
    """
    num, accumulated = config.data.num_images, config.trainer.accumulate_grad_batches
    augmentation = config.data.augmentation
    ways = []
    if num > 1:
        ways.append(
            f"data.batch_size ({num}; with trainer.accumulate_grad_batches, now {accumulated}, raised as much a step "
            f"still sees {num * accumulated} images)"
        )
    ways.append(_image_size(config))
    if augmentation.multi_scale is not None:
        ways.append(f"the upper end of data.augmentation.multi_scale ({augmentation.multi_scale[1]:g})")
    crowding = [key for key in _BY_OBJECTS if getattr(augmentation, key)]
    ways += [f"data.augmentation.{key} (many objects in one image)" for key in crowding]
    if isinstance(config.model, FasterRcnnConfig | MaskRcnnConfig):
        ways.append(f"model.roi_heads.batch_size_per_image ({config.model.roi_heads.batch_size_per_image})")
        ways.append(f"model.rpn.post_nms_top_n_train ({config.model.rpn.post_nms_top_n_train})")
    if config.data.num_workers:
        ways.append(f"for main memory data.num_workers ({config.data.num_workers})")
    precision = "trainer.precision=bfloat16, " if computes_float32 else ""
    return (
        f"lower, in this order: {', '.join(ways)}; a run can be resumed only with the images a step, image size, "
        f"augmentation and model that it began with: --resume goes on with {precision}fewer data.num_workers, more "
        f"memory, or more devices and a smaller data.batch_size for each, any other change needs a new run"
    )


def evaluation_advice(config: ExperimentConfig) -> str:
    """What to lower in an evaluation."""
    ways = []
    if config.data.num_images > 1:
        ways.append(f"data.batch_size ({config.data.num_images}), which changes no number")
    if config.data.num_workers:
        ways.append(f"for main memory data.num_workers ({config.data.num_workers})")
    ways.append(f"{_image_size(config)}, which changes the numbers")
    return f"lower, in this order: {'; '.join(ways)}; or take a device with more memory (--device)"


def _image_size(config: ExperimentConfig) -> str:
    height, width = config.data.input_hw
    return f"data.image_size ({height} x {width})"
