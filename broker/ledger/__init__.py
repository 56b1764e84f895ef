"""The durable truth: a hash-chained journal and projections that are its fold."""
