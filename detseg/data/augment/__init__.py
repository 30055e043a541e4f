"""Random changes of training images with their boxes, masks and label maps."""
