"""What every page and picture shares."""
