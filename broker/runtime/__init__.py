"""Process plumbing shared by the broker, the workers and the command: no decisions in here."""
