"""How soon a model aligns and speaks, recipe beside recipe."""
