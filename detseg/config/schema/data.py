"""Settings of the data sets, the loader and the augmentation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from detseg.config.schema.section import Count, Factor, InputSide, NonNegativeInt, Probability, Section
from detseg.errors import ConfigError


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected [lowest, highest], got {list(bounds)}")
    return bounds


ValueRange = tuple[float, float] | Literal["percentiles"] | None


def _rising(bounds: ValueRange) -> ValueRange:
    if isinstance(bounds, tuple) and not -math.inf < bounds[0] < bounds[1] < math.inf:
        raise ValueError(f"expected [low, high] with low < high, got {list(bounds)}")
    return bounds


ClipLimit = Annotated[float, Field(ge=1, le=256)]
Percent = Annotated[int, Field(ge=1, le=100)]
Factors = Annotated[tuple[Factor, Factor], AfterValidator(_ordered)]


class RandomSection(Section):
    """Settings of a random change."""

    probability: Probability = 0.0
    """How often."""


class AffineConfig(RandomSection):
    """Random affine map of image and boxes about the image's centre."""

    scale: Factors = (0.8, 1.2)
    """Zoom factor."""
    translate: Probability = 0.1
    """Largest shift, as a fraction of the image's side."""
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest rotation to either side."""
    shear_degrees: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Largest shear to either side."""


class ColorConfig(RandomSection):
    """Random change of colour; each value is the largest relative change to either side."""

    brightness: Probability = 0.2
    """Of brightness."""
    contrast: Probability = 0.2
    """Of contrast."""
    saturation: Probability = 0.4
    """Of saturation."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.015
    """Of hue, as a fraction of the colour circle."""


class CutoutConfig(RandomSection):
    """Random grey rectangles over the image (DeVries, Taylor 2017); boxes and masks stay."""

    max_holes: Annotated[int, Field(ge=1, le=1000)] = 4
    """Most rectangles."""
    max_size: Probability = 0.2
    """Longest side of a rectangle, as a fraction of the image's side."""


class ClaheConfig(RandomSection):
    """Random contrast-limited adaptive histogram equalisation of the lightness (Zuiderveld 1994), on 8 × 8 tiles."""

    clip_limit: Annotated[tuple[ClipLimit, ClipLimit], AfterValidator(_ordered)] = (1.0, 4.0)
    """Range of the clip limit: the largest count in a tile's histogram as a multiple of its mean, and so the most that
    contrast grows by."""


class SaltAndPepperConfig(RandomSection):
    """Random white and black pixels, about as many of each."""

    amount: Annotated[tuple[Probability, Probability], AfterValidator(_ordered)] = (0.01, 0.06)
    """Range of the fraction of the pixels."""


class JpegConfig(RandomSection):
    """Random JPEG artefacts."""

    quality: Annotated[tuple[Percent, Percent], AfterValidator(_ordered)] = (50, 95)
    """Range of the quality."""


class ElasticConfig(RandomSection):
    """Random smooth deformation from displacements on a coarse grid (Ronneberger, Fischer, Brox 2015, section 3.1); for
    data with masks only: boxes alone cannot follow."""

    grid: Annotated[int, Field(ge=2, le=32)] = 3
    """Grid points along each side, as in the paper."""
    strength: Annotated[float, Field(gt=0, le=0.2)] = 0.02
    """Standard deviation of the displacements, as a fraction of the shorter side; the paper: 10 pixels of 512."""


class AugmentationConfig(Section):
    """Random changes of the training images; the validation images are letterboxed only."""

    horizontal_flip: Probability = 0.5
    """How often the image is mirrored left to right."""
    vertical_flip: Probability = 0.0
    """How often the image is mirrored top to bottom."""
    crop: Probability = 0.0
    """How often a random part of the image that keeps every box is cut out before the letterbox."""
    scale_jitter: Factors | None = None
    """Range of a zoom factor for each image: a random part of an enlarged image, or a random place for a reduced one
    (Chen et al. 2018: 0.5 to 2); null: off."""
    affine: AffineConfig = AffineConfig()
    elastic: ElasticConfig = ElasticConfig()
    color: ColorConfig = ColorConfig()
    clahe: ClaheConfig = ClaheConfig()
    blur: Probability = 0.0
    """How often the image is blurred a little."""
    noise: Probability = 0.0
    """How often Gaussian noise is added."""
    salt_and_pepper: SaltAndPepperConfig = SaltAndPepperConfig()
    jpeg: JpegConfig = JpegConfig()
    cutout: CutoutConfig = CutoutConfig()
    mosaic: Probability = 0.0
    """How often four images are put together into one."""
    mosaic_scale: Factors = (0.5, 1.5)
    """Zoom of each image of a mosaic, relative to its letterboxed size."""
    mixup: Probability = 0.0
    """How often an image is blended with another one (Zhang et al. 2018); the boxes of both count. For boxes only."""
    copy_paste: Probability = 0.0
    """How often objects of another image, each with a probability of one half, are pasted over an image by their masks
    (Ghiasi et al. 2021); what they cover is lost to the objects underneath. For masks of objects only."""
    no_mosaic_last_epochs: NonNegativeInt | Annotated[float, Field(gt=0, lt=1)] = 0
    """Epochs at the end without mosaic, mixup and copy_paste, so that training ends on real images; a shorter one has
    none. A fraction: that part of all epochs."""
    multi_scale: Factors | None = None
    """Range of the factor by which each training batch's size differs from `image_size` (rounded to 32); null: off."""
    albumentations: Path | None = None
    """A pipeline of albumentations to run after the geometry above and before `color`, as `A.save(pipeline, path,
    data_format="yaml")` writes it (a name that ends in .json: `"json"`); null: none. See docs/augmentation.md."""
    min_visibility: Probability = 0.1
    """A box is dropped when a crop, shift or mosaic leaves less than this fraction of its area in the image."""
    min_box_size: Annotated[float, Field(ge=0)] = 2.0
    """A box is dropped when a side of what is left of it in the network input is shorter, in pixels."""

    def mosaic_epochs(self, max_epochs: int) -> int:
        """In how many of ``max_epochs`` epochs, from the first on, images are put together; 0 or less: in none."""
        last = self.no_mosaic_last_epochs
        return max_epochs - (last if isinstance(last, int) else round(last * max_epochs))


class DataSection(Section):
    """Settings of every data section."""

    image_size: InputSide | tuple[InputSide, InputSide] = 640
    """Side of the square network input in pixels, or [height, width]; multiples of 32 for detectors."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"] = 16
    """Images of one training step and process. `auto`: as many as fit into a GPU's memory, tried on the largest and
    fullest images possible; `optimizer.lr` is then the rate for 16 images and is scaled to the number found: in
    proportion for sgd, by the square root for the others. On one CUDA GPU only; see docs/training.md."""
    num_workers: Annotated[int, Field(ge=0, le=1024)] = 2
    """Loader processes; the sample stream does not depend on it."""
    loader_timeout: Annotated[float, Field(gt=0)] = 300
    """Seconds that a training or evaluation waits for a batch of these processes, beyond which it ends with an
    error."""
    on_bad_sample: Literal["error", "skip"] = "error"
    """A training sample that cannot be read or contradicts its annotation: `error` stops with its name; `skip` takes
    another sample instead, always the same, and lists it in the run directory. Unreadable annotation files, missing
    files, and unreadable images whose size no annotation states are errors with `skip`, too. Evaluation never skips."""
    max_bad_fraction: Probability = 0.01
    """Largest fraction of the training set that may be skipped; more is an error."""
    on_change: Literal["error", "warn"] = "error"
    """When a run is resumed with other data than it began with: an `error`, or a warning (`warn`)."""
    on_missing: Literal["error", "skip"] = "error"
    """Images that the annotations name and that are not there: an `error`, or left out and counted (`skip`)."""
    file_names: Literal["exact", "relaxed"] = "exact"
    """How images are found by the names in the annotations: as written; or, where there is no such file, with slashes
    for backslashes, in any case and Unicode form, and by the base name (`relaxed`), and the log says how many."""
    classes: tuple[str | dict[str, tuple[str, ...]], ...] | None = None
    """The classes that count, in label order; `{truck: [lorry, van]}` merges several into one. Objects of other classes
    are left out and counted. null: all of the data (COCO, YOLO, CVAT: those that are listed; VOC, LabelMe: sorted names
    of the training annotations; masks: those of the file in `root` that names them, such as `classes.txt`, with
    the background). Of masks the pixels of others are ignored; where no file names any, these are the names in the
    order of the values."""
    value_range: Annotated[ValueRange, AfterValidator(_rising)] = None
    """How images of more than 8 bits, or of floats, become 8 bits: `[low, high]`, in the images' own units (12 bits:
    `[0, 4095]`), become 0 and 255; `percentiles`: of each image its 0.5 and 99.5 percentiles; null: the upper 8 of 16
    bits. Images of 8 bits stay as they are, and masks. Prediction reads images as the training did."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the training images to train on, chosen by `split_seed` with the classes in proportion."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate on this part of the training images instead of a split of its own, and train on the others; chosen by
    `split_seed` with the classes in proportion and groups of images whole. null: there is a validation split."""
    split_seed: NonNegativeInt = 0
    """Seed of `fraction` and `val_fraction`."""
    split_group: str = "near-duplicates"
    """What `val_fraction` keeps together: `near-duplicates` (images that look nearly the same; all are decoded for
    it), `none`, or a regular expression whose match in an image's path (its first group, if any) names the group."""
    augmentation: AugmentationConfig = AugmentationConfig()

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of the network input, pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of ``classes`` in label order, without what they merge."""
        if self.classes is None:
            return None
        return tuple(name for spec in self.classes for name in ([spec] if isinstance(spec, str) else spec))

    @property
    def num_images(self) -> int:
        """``batch_size`` as a number; ``auto`` raises ConfigError."""
        if self.batch_size == "auto":
            raise ConfigError("data.batch_size: auto is found when a training begins; give a number here")
        return self.batch_size


MaskValue = Annotated[int, Field(ge=0, le=255)]
Rgb = tuple[MaskValue, MaskValue, MaskValue]


class MaskPictureSection(DataSection):
    """Settings of the layouts whose masks are image files; for segmentation only."""

    mask_values: tuple[MaskValue, ...] | None = None
    """Pixel value of each class in label order; null: the label itself, 0, 1, 2, ..."""
    ignore_index: MaskValue | None = 255
    """Pixel value to ignore in losses and metrics (VOC's void); null: there is none."""
    mask_threshold: Annotated[int, Field(ge=1, le=255)] | None = None
    """Of two classes: the least value of the second, for masks with soft edges (128 where they go from 0 to 255); no
    value is ignored then. null: values are exact."""
    mask_colors: tuple[Rgb, ...] | None = None
    """Red, green, blue of each class in label order, where masks are colour images; null: masks hold values."""
    ignore_colors: tuple[Rgb, ...] = ()
    """Colours to ignore in losses and metrics."""


class VocConfig(MaskPictureSection):
    """Pascal VOC layout: `JPEGImages/`, with `Annotations/` and `ImageSets/Main/` for detection, with
    `SegmentationClass/` and `ImageSets/Segmentation/` for segmentation. For detection also any folder of VOC's XML
    files and images, without `ImageSets/`."""

    name: Literal["voc"]
    root: Path
    """The folder that holds those; or `VOCdevkit/` with year folders in it, or the folder that holds that."""
    years: tuple[str, ...] = ()
    """Year folders to merge (`VOC2007`: "2007"); empty: `root` itself is the one folder. A split may name its own year
    as `2007:test`."""
    train_split: str = "train"
    """List in ImageSets/Main (or Segmentation) to train on; several are joined by `+`:
    `2007:trainval+2012:trainval`. Without `ImageSets/`: a folder below `root`, of which all XML files are read (`.`:
    all of `root`), or a text file that lists images or XML files relative to `root`."""
    val_split: str = "val"
    """What to validate on; `val` is also found as `valid` or `validation`."""
    test_split: str = "test"
    """What `detseg evaluate --split test` uses."""
    download: bool = False
    """Fetch VOC 2007/2012 from its authors' server where it is missing, checked by SHA-256."""


class CocoConfig(DataSection):
    """COCO layout: a folder of images and a JSON file a split, or several of both."""

    name: Literal["coco"]
    root: Path
    """Folder that the paths below are relative to."""
    train_images: Path | tuple[Path, ...] = Path("train2017")
    """Image folder of the training split; of several annotation files that of all, or a list of one for each."""
    train_annotations: Path | tuple[Path, ...] = Path("annotations/instances_train2017.json")
    """Annotation file of the training split, or a list of them; their categories are matched by name."""
    val_images: Path | tuple[Path, ...] = Path("val2017")
    """Image folder of the validation split, or a list of them."""
    val_annotations: Path | tuple[Path, ...] = Path("annotations/instances_val2017.json")
    """Annotation file of the validation split, or a list of them."""
    test_images: Path | tuple[Path, ...] | None = None
    """Image folder of the test split, if there is one with annotations, or a list of them."""
    test_annotations: Path | tuple[Path, ...] | None = None
    """Annotation file of the test split, or a list of them."""


class SplitSection(DataSection):
    """Settings of the layouts in which a split is a folder or a list of images."""

    root: Path
    """Folder that holds the data."""
    train_split: str = "train"
    """What to train on."""
    val_split: str = "val"
    """What to validate on."""
    test_split: str = "test"
    """What `detseg evaluate --split test` uses."""


class YoloTextConfig(SplitSection):
    """YOLO text: a file of lines `class x y width height` (or corners of a polygon) for each image. A split is a key
    of `data.yaml` in `root` (`val` is also found as `valid`), a folder, or a list of images in a text file."""

    name: Literal["yolo"]


class LabelMeConfig(SplitSection):
    """LabelMe: a JSON file beside each image. A split is a folder below `root` (`.`: all of it), or a list of images in
    a text file."""

    name: Literal["labelme"]


class CvatConfig(SplitSection):
    """CVAT's XML for images (1.1). A split is a subset that the file names, or an XML file below `root`."""

    name: Literal["cvat"]


class AutoConfig(SplitSection):
    """A folder whose layout is found out when it is opened; `detseg config new DIR` writes what it finds to a file."""

    name: Literal["auto"]


class ShapesConfig(DataSection):
    """The embedded synthetic set: coloured, textured shapes that overlap; written to `root` on first use."""

    name: Literal["shapes"]
    image_size: InputSide | tuple[InputSide, InputSide] = 160
    """As in the other layouts."""
    root: Path = Path("data/shapes")
    """Folder that the set is generated into; reused when it already holds this very set."""
    num_train: Count = 400
    """Training images."""
    num_val: Count = 100
    """Validation images."""
    size: Annotated[int, Field(ge=64, le=4096)] = 160
    """Longest side of the images in pixels."""
    max_objects: Annotated[int, Field(ge=1, le=1000)] = 6
    """Most objects of an image."""
    data_seed: NonNegativeInt = 0
    """Seed of the generator; the same seed gives the same files."""


class MaskFolderConfig(MaskPictureSection):
    """A folder of images and one of masks a split; a mask has the name of its image, but for what is stated below. For
    segmentation only."""

    name: Literal["mask_folder"]
    root: Path
    """Folder that the paths below are relative to, and of the file that names the classes."""
    train_images: Path = Path("train/images")
    """Image folder of the training split, or a text file that lists images, relative to `root`, one a line."""
    train_masks: Path = Path("train/masks")
    """Mask folder of the training split."""
    val_images: Path = Path("val/images")
    """Image folder of the validation split."""
    val_masks: Path = Path("val/masks")
    """Mask folder of the validation split."""
    test_images: Path | None = None
    """Image folder of the test split, if there is one."""
    test_masks: Path | None = None
    """Mask folder of the test split."""
    mask_suffix: str = ""
    """What the name of a mask has behind that which it has in common with its image: `_mask` for `a.jpg` and
    `a_mask.png`."""
    mask_prefix: str = ""
    """What the name of a mask has before it: `gt_` for `a.jpg` and `gt_a.png`."""
    image_suffix: str = ""
    """What the name of an image has behind it: `_leftImg8bit`, with `mask_suffix: _gtFine_labelTrainIds`."""
    image_prefix: str = ""
    """What the name of an image has before it: `image_` for `image_1.png`, with `mask_prefix: gt_`."""
    mask_per_class: bool = False
    """Whether there is a mask for each class, 0 outside: `NAME/a.png`, `a_NAME.png`, or Label Studio's
    `task-1-annotation-1-by-1-tag-NAME-0.png` for an image `1.jpg` or `task-1.jpg`. Those of one class are united, of
    several classes that with the fewest pixels counts, the rest is background."""


class CustomDataConfig(DataSection):
    """Data sets that `detseg.train` is given in Python."""

    name: Literal["custom"]


DataConfig = Annotated[
    VocConfig
    | CocoConfig
    | YoloTextConfig
    | LabelMeConfig
    | CvatConfig
    | MaskFolderConfig
    | ShapesConfig
    | AutoConfig
    | CustomDataConfig,
    Field(discriminator="name"),
]
