"""Enrollment: one program that makes this host a member, then ends."""
