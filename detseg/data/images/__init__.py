"""From the bytes of image files to RGB arrays, and from mask images to label maps."""
