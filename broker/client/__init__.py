"""The callers' side of the broker: links that retry with one id, and subscriptions."""
