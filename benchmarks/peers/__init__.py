"""The far side of comparisons with programs that live in an environment of their own; nothing of detseg is imported."""
