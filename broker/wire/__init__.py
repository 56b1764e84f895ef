"""The contract between processes and between nodes. Sans-IO.

`base` and `ids` are leaves; one module per conversation; `messages` gathers them into unions and
`codec` turns them into frames. Evolution: add fields last with a default, never reuse a tag,
tolerate unknown fields in messages.
"""
