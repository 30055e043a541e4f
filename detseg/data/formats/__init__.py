"""One module per file format: read a data set, or write one."""
