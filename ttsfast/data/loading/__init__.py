"""From a store to padded batches in the order of a plan."""
