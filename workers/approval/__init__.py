"""The approval loop: put each pending join before a decider and report the answer."""
