"""Training through Lightning: the only package that subclasses its classes."""
