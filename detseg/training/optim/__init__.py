"""Optimisers, schedules, averaged weights, freezing."""
