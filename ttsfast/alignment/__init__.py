"""Who is spoken when: the forward-sum loss, the monotonic alignment search, and their prior."""
