"""The referee: every figure is taken against a raw limit measured in the same run."""
