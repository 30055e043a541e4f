"""The sub-commands that judge a model, or the results of any program."""
