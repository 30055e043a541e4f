"""Two-stage detectors: Faster R-CNN and Mask R-CNN, of torchvision's networks and our own steps around them."""
