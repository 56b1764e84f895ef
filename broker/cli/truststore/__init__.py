"""Stores of trust anchors that other programs of this machine use: the system's, and NSS's."""
