"""Renewal workers on another machine: a member's processors work for the CA."""
