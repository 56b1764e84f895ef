"""The local door: HTTP on a Unix socket for the command, and for whoever has the node's uid."""
