"""Settings → task, data, callbacks, Trainer."""
