"""From sentences to waves."""
