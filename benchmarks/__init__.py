"""Programs that measure what docs/benchmarks.md states; ``python -m benchmarks.run`` runs those beside a peer."""
