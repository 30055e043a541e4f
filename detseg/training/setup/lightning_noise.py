"""Keeps what Lightning says of itself off the screen: tips, and advice on choices that were made on purpose."""

from __future__ import annotations

import logging
import os
import warnings

_ADVICE = (
    ".*does not have many workers.*",
    ".*number of training batches.*",
    ".*in eval mode at the start of training.*",  # the averaged model and frozen layers
    ".*Experiment logs directory.*",
    ".*sync_dist=True.*",  # every process validates the whole set
    ".*LeafSpec.*",  # Lightning against a newer torch
    ".*train_dataloader yielded None.*",  # the batches that a resumed run had before
)


def quiet_lightning() -> None:
    """Change the process's logging and warnings accordingly."""
    os.environ.setdefault("PL_DISABLE_TIPS", "1")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _ADVICE:
        warnings.filterwarnings("ignore", message)
