"""What a model's predictions are worth: a checkpoint on a data set, or a file of results of any program."""

from __future__ import annotations

from detseg.evaluation.results_file import evaluate_results, evaluate_results_file
from detseg.evaluation.run import evaluate, evaluate_checkpoint, evaluation_config

__all__ = ["evaluate", "evaluate_checkpoint", "evaluate_results", "evaluate_results_file", "evaluation_config"]
