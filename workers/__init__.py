"""The loops of a node, one operating-system process each."""
