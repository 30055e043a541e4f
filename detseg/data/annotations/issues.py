"""All kinds of issues that a data set may have: severity, what the user reads, and what to do about it."""

from __future__ import annotations

from enum import Enum, IntEnum


class Severity(IntEnum):
    """How bad an issue is: for information, worth a look, or wrong."""

    NOTE = 0
    WARNING = 1
    ERROR = 2


_NOTE, _WARNING, _ERROR = Severity.NOTE, Severity.WARNING, Severity.ERROR


class DataIssue(Enum):
    """All kinds of issues: severity, what the user reads, and what to do about it."""

    # of boxes and masks of objects
    NO_AREA = (
        _WARNING,
        "boxes without area (left out of training, unless masks are learned)",
        "correct them; detseg check --fix removes them",
    )
    NOTHING_INSIDE = (
        _WARNING,
        "boxes outside their image (left out of training, unless masks are learned)",
        "correct them; detseg check --fix removes them",
    )
    OUTSIDE = (
        _WARNING,
        "boxes that extend more than a pixel beyond their image (clipped in training)",
        "clip them; detseg check --fix does",
    )
    NO_PIXEL = _WARNING, "masks without a pixel (left out of training)", "remove these objects, or draw them again"
    ONE_PIXEL = _WARNING, "boxes of one pixel or less", "remove them, if they are slips of the mouse"
    INVERTED = (
        _ERROR,
        "boxes whose second corner lies left of or above the first (left out of training, unless masks are learned)",
        "swap the corners; detseg check --fix does",
    )
    SIZE_AS_CORNER = (
        _ERROR,
        "boxes with xmax < xmin or ymax < ymin: width and height seem to stand where the second corner should",
        "write xmin + width and ymin + height; detseg check --fix does",
    )
    SIZE_OR_SWAPPED = (
        _ERROR,
        "boxes with xmax < xmin or ymax < ymin: swapped corners, or width and height as second corner; both fit",
        "see which it is, and swap the corners or write xmin + width and ymin + height; it is not repaired",
    )
    CORNER_AS_SIZE = (
        _ERROR,
        "boxes of a split where many leave their image: the second corner seems to stand where width and height should",
        "write width and height there (and in YOLO text the centre before them); detseg check --fix does",
    )
    RELATIVE = (
        _ERROR,
        "boxes in relative coordinates, all within 0 to 1, where pixels are expected",
        "multiply them by the sides of the image; detseg check --fix does",
    )
    REPEATED = (
        _WARNING,
        "boxes that repeat another of the same class in the image exactly",
        "remove the repetitions; detseg check --fix does",
    )
    TWO_CLASSES = (
        _WARNING,
        "boxes that are exactly that of an object of another class in the image",
        "remove the wrong one of each pair, unless there are two objects",
    )
    NEARLY_REPEATED = (
        _WARNING,
        "boxes nearly the same as another of the same class in the image (IoU above 0.95, or within a pixel)",
        "remove one of each pair, unless there are two objects",
    )
    NARROW = _NOTE, "boxes with a side below 2 pixels", "nothing, if the objects are so small"
    BOX_NOT_OF_MASK = (
        _WARNING,
        "objects whose stated box is not that of their mask",
        "state the bounds of the mask, or correct the mask",
    )
    AREA_NOT_OF_MASK = (
        _WARNING,
        "objects whose stated area is not that of their mask",
        "state the number of pixels in the mask, or correct the mask",
    )
    ROW_MAJOR = (
        _ERROR,
        "masks whose run lengths go row by row, where COCO counts column by column: transposed they fit the stated box",
        "encode the masks column by column; detseg check --fix does",
    )
    FILLED_HOLES = (
        _ERROR,
        "masks with holes exported as further polygons, which fill them: cut out, they fit the stated area",
        "export run lengths instead of polygons; detseg check --fix cuts the holes out",
    )
    WRONG_MASK = _ERROR, "label maps that cannot be read", "correct what the message says, or the settings of masks"
    # of images
    UNREADABLE = (
        _ERROR,
        "images that cannot be read, or are cut short",
        "replace or convert them; detseg check --fix leaves them out",
    )
    ODD_MODE = (
        _NOTE,
        "images in an unusual form (CMYK, palette, 1 bit, grey with alpha), converted to RGB when they are read",
        "nothing, if their colours look right in the pictures here",
    )
    TRANSPARENT = (
        _WARNING,
        "images with transparent pixels, whose transparency is dropped",
        "put them on the background that they are meant for",
    )
    PARTLY_READ = (
        _WARNING,
        "images of which a part is not read (further pages or frames, a fourth channel, pixels without a number, "
        "stray bytes in a JPEG)",
        "make images of the other pages, fill such pixels, and look whether a JPEG with stray bytes is damaged",
    )
    FLOATS = (
        _ERROR,
        "images of floats, which are not read without the range of their values",
        "set data.value_range to their lowest and highest value",
    )
    SIXTEEN_BITS = _NOTE, "images of 16 bits, of which the upper 8 are kept", "set data.value_range for another range"
    BEFORE_ROTATION = (
        _ERROR,
        "images whose annotation was made before their EXIF rotation: the sides are swapped",
        "remove the orientation tag from the images, or rotate the annotations",
    )
    ORIENTED = (
        _NOTE,
        "images that their EXIF orientation turns or mirrors when they are read",
        "nothing, if the boxes fit in the pictures; else remove the orientation tag",
    )
    OTHER_SIZE = (
        _ERROR,
        "images of another size than their annotation states",
        "restore the images that were annotated, or scale the boxes if they were drawn at the stated size; where boxes "
        "fit the image and not the stated size, detseg check --fix corrects it",
    )
    MASK_SIZE = (
        _ERROR,
        "label maps of another size than their image",
        "make them again in the size of the image; detseg check --fix leaves both out",
    )
    UNLISTED = (
        _NOTE,
        "image files that no split lists (not used)",
        "nothing, if that is meant; without annotations they are no background images",
    )
    OTHER_PIXELS = (
        _WARNING,
        "channels whose mean is far from what the model's normalisation expects, or that have hardly any contrast",
        "look at the images: dark, inverted or of a narrow range? data.value_range is for more than 8 bits",
    )
    # of several images
    SAME_IMAGE = (
        _WARNING,
        "images that are the same file as an earlier one in their split",
        "remove the repetitions, and compare their annotations",
    )
    SIMILAR_IMAGE = (
        _NOTE,
        "images that look nearly like an earlier one in their split",
        "keep them on one side of every split: detseg split --group near-duplicates",
    )
    SAME_ACROSS = (
        _ERROR,
        "images that are in two splits (the same file)",
        "remove them from one; detseg check --fix takes out of train what is elsewhere, if that is less than half; or "
        "split again: detseg split",
    )
    SIMILAR_ACROSS = (
        _WARNING,
        "images that look nearly like one of another split, which makes evaluation too good",
        "split again: detseg split --group near-duplicates",
    )
    CANNOT_OPEN = _ERROR, "splits that cannot be opened", "correct what the message says, or the settings of the split"
    ZERO_BASED = (
        _NOTE,
        "boxes with a corner at 0 though VOC counts pixels from 1 (was the file written 0-based?)",
        "nothing is needed: they are read a pixel too large",
    )
    # of files, sizes and lists
    WRONG_FILENAME = (
        _NOTE,
        "annotation files whose <filename> is not their image (ignored; the list's name counts)",
        "nothing is needed",
    )
    SIZE_NOT_STATED = (
        _NOTE,
        "images whose size the annotation does not state (taken from the image)",
        "nothing is needed",
    )
    OTHER_KEYS = (
        _NOTE,
        "values in annotation files that are not read (a converted or repaired copy lacks them)",
        "nothing, if nobody needs them; else keep the files",
    )
    AREA_NOT_STATED = (
        _NOTE,
        "annotations whose area is not stated (that of the mask is taken, without masks that of the box)",
        "nothing is needed",
    )
    LISTED_TWICE = _WARNING, "images listed more than once (read once)", "take the repetitions off the list"
    MISSING_IMAGE = (
        _ERROR,
        "images that are missing (left out)",
        "add the files, or leave them out with data.on_missing=skip",
    )
    OTHER_PLACE = (
        _NOTE,
        "folders, lists and images that were found elsewhere below the root than stated",
        "nothing, if these are the ones that are meant",
    )
    EMBEDDED_IMAGE = (
        _ERROR,
        "images that are in their annotation files alone (left out)",
        "write each beside its annotation file",
    )
    WRONG_FILE = _ERROR, "annotation files that cannot be read (left out)", "correct them, or export them again"
    OTHER_SHAPE = (
        _WARNING,
        "points, lines, tags and the like, which are neither boxes nor outlines (left out)",
        "draw boxes or outlines, if these are objects",
    )
    ROTATED = _ERROR, "rotated boxes (left out)", "export their outlines as polygons, or draw upright boxes"
    FOUR_CORNERS = (
        _WARNING,
        "lines of label files, all of which are a class and four corners: oriented boxes? (read as polygons)",
        "export upright boxes if they are; of polygons say 'task: segment' in data.yaml",
    )
    NO_LABEL_FILE = (
        _NOTE,
        "images without a label file (kept, as background)",
        "nothing, if there are no objects in them",
    )
    NO_IMAGE = _WARNING, "label files and masks without an image (not read)", "add their images, or remove them"
    SHARED_LABELS = (
        _WARNING,
        "images that share a label file, as their names differ in the suffix alone",
        "rename one of them and its labels, or remove it",
    )
    UNLABELLED = (
        _WARNING,
        "images without an annotation file (left out: nobody has labelled them)",
        "label them; save an empty annotation for those without objects",
    )
    OTHER_SPELLING = (
        _WARNING,
        "images that were found under another spelling of their name",
        "correct the names (detseg convert writes them so); data.file_names=relaxed reads them as they are",
    )
    LOW_RANGE = (
        _WARNING,
        "images of more than 8 bits that use a small part of the range that is read",
        "set data.value_range to the range of all images",
    )
    UNCLEAR_IMAGE = (
        _ERROR,
        "annotation files whose image is not clear (left out)",
        "give each annotation the name of its image, and each image a name of its own",
    )
    NEEDS_PACKAGE = (
        _ERROR,
        "images in a format that needs another package (left out)",
        'pip install "detseg[heic]" for HEIC, or save them as JPEG',
    )
    # of objects as the file has them
    WRONG_OBJECT = _ERROR, "objects that cannot be read (left out)", "correct them, or remove them"
    DUPLICATE_ID = _ERROR, "entries with the id of an earlier one (left out)", "give each entry an id of its own"
    UNKNOWN_IMAGE = _ERROR, "objects of images that the file does not list (left out)", "add the images, or remove them"
    UNKNOWN_CATEGORY = (
        _ERROR,
        "objects of categories that the file does not list (left out)",
        "add the categories, or correct the objects",
    )
    BAD_MASK = (
        _ERROR,
        "segmentations that cannot be used (the objects are kept with their boxes)",
        "correct what the message says",
    )
    NO_OUTLINE = (
        _ERROR,
        "objects with a box and no outline, of which masks cannot be learned",
        "draw their outlines, or train on boxes (model.name=faster_rcnn or yolo)",
    )
    # of classes
    UNKNOWN_CLASS = (
        _ERROR,
        "objects of classes that the training set lacks (left out)",
        "correct the annotations, or name the classes in data.classes",
    )
    NOT_IN_TABLE = (
        _WARNING,
        "objects of categories that the training set does not list (left out)",
        "add objects of them to the training set, or name the classes that count in data.classes",
    )
    OTHER_ID = (
        _NOTE,
        "categories that have another id than in the training set (matched by name)",
        "nothing, if the names mean the same",
    )
    LEFT_OUT = _NOTE, "objects of classes that data.classes leaves out", "nothing, if that is meant"
    # of objects and images
    NO_OBJECTS = _NOTE, "images without objects (kept, as background)", "nothing, if there are no objects in them"
    CROWD = _NOTE, "crowd regions (neither right nor wrong to find)", "nothing is needed"
    DIFFICULT = _NOTE, "difficult objects (neither right nor wrong to find)", "nothing is needed"
    UNSEEN = (
        _WARNING,
        "classes without any object",
        "add objects of them, split again if other splits have some (detseg split), or leave them out: data.classes",
    )
    SIMILAR_NAMES = (
        _WARNING,
        "class names that differ by little: a slip?",
        "correct them, or merge them in data.classes, as in [{car: [car, Car]}, ...] with these names",
    )
    OFF_BY_ONE = (
        _ERROR,
        "class ids that seem to count from 1 where they should count from 0, or the reverse",
        "subtract (or add) 1 in the annotations",
    )
    FEW_OBJECTS = _WARNING, "classes with fewer than 10 objects in train", "add objects of them, or merge classes"
    IMBALANCE = (
        _NOTE,
        "classes with less than a hundredth of the objects of the most frequent one",
        "add objects of them; AP by class shows whether they are learned",
    )
    NOTHING_TO_LEARN = (
        _ERROR,
        "splits without anything that can be trained on",
        "do what the message says",
    )
    TOO_MANY = (
        _WARNING,
        "images with more objects of a class than evaluation.max_detections counts",
        "raise evaluation.max_detections (and model.max_detections)",
    )
    SMALL_IN_INPUT = (
        _WARNING,
        "objects below 8 x 8 pixels (by area) in the network input",
        "raise data.image_size, or cut the images into tiles",
    )
    ANCHORS = (
        _WARNING,
        "objects that no anchor of the model fits (IoU of the shapes below 0.5)",
        "fit the anchors to the data: of a yolo model.head.anchors=null; else model.rpn.anchor_sizes, such as "
        "[[8], [16], [32], [64], [128]], one list for each level",
    )
    RARE_PIXELS = _NOTE, "classes with less than 0.1 % of the pixels", "weight them: losses with median frequency"
    # of semantic masks
    NO_MASK = _ERROR, "images without a mask (left out)", "add the masks, or take the images out"
    OTHER_NAMES = (
        _NOTE,
        "files whose names do not have the prefix and suffix that the settings state (not read)",
        "nothing, if that is meant",
    )
    OTHER_PALETTE = (
        _WARNING,
        "masks whose palette has the colours of earlier masks at other values (values are read, not colours)",
        "if the colours are right, name them in data.mask_colors",
    )
    ALL_IGNORED = _WARNING, "images of which no pixel counts (the whole mask is ignored)", "remove them, or label them"
    ONE_CLASS = _NOTE, "masks that show one class and ignored pixels, and nothing else", "nothing, if that is meant"
    ABSENT = _WARNING, "classes that no mask shows", "add masks of them, or leave them out with data.classes"

    def __init__(self, severity: Severity, text: str, fix: str) -> None:
        self.severity, self.text, self.fix = severity, text, fix
