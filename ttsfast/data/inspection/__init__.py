"""What is inside a store, as a table and as a page."""
