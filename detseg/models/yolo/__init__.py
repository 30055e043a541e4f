"""YOLO-style detectors: one network, three schemes (grid, anchors, task-aligned points)."""
