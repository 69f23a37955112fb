"""Is a run on its way: checks of a training log, of ours or of another trainer."""
