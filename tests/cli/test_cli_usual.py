"""What the file of a node says when nobody said anything."""

from broker.cli.nodeoptions import usual_settings


def test_a_node_that_joined_asks_people_as_the_founder_does() -> None:
    """It may lead after a takeover, and without a decider it would deny every request (P14)."""
    assert usual_settings("birch")["approval", "decider"] == "queue"
