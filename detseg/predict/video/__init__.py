"""Prediction over videos: frames, decoded in a thread; tracks; the drawn video and its results as JSON lines."""
