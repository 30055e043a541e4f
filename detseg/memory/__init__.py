"""How much memory there is, and what is said when there is not enough.  Nothing here imports Lightning."""
