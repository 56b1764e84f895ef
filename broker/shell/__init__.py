"""The broker's I/O: sockets, the drain-decide-commit-reply loop, publishing, files, threads."""
