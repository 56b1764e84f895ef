"""One function per request: read the facts it needs, ask `broker.core`, append, answer.

A verb is called with the state, the batch, the caller and the request; it returns a reply or
`DEFERRED`, or raises a `MeshError`. It decides before it appends.
"""
