"""The failover loop: announce this CA, find others, and prove over mutual TLS who lives."""
