"""A report of a model as one HTML page: how good it is and how sure that is, what goes wrong, and what to do next."""
