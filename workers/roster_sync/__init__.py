"""The roster-sync loop: carry bundles, journal rows, keys and orphans between the nodes."""
