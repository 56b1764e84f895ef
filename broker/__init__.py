"""certmesh's core: the wire contract, the decisions, the ledger and the broker process."""
