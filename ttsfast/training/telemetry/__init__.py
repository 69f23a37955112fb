"""Where a run's figures go, and where a step's time went."""
