"""Exported models without torch: what travels in their files (description), what computes them (engines), and
predictors over these (predictor)."""
