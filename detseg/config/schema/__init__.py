"""The settings of an experiment as pydantic models, one file for each part."""
