"""Renewal: fresh keys on the member, certificates into service, and the truth about both."""
