"""Where the course of a training is written besides its run directory, and what a run remembers of how it began."""
