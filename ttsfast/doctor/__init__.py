"""Is the model right, and was the data prepared right: with evidence, and what mends it."""
