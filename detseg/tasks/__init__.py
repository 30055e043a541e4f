"""The kinds of task: what each trains on, is measured by and draws."""
