"""The certmesh command: a client of the console's local socket."""
