"""The roster-sync loop: fetch the newest signed trust bundle and hand it to the broker."""
