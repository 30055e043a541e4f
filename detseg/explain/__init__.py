"""Why a network finds what it finds, and misses what it misses."""
