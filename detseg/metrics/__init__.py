"""What a model is measured by: each number has a referee, and the same evaluator serves every tool."""
