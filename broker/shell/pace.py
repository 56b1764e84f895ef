"""How often members are heard: the pace that a primary asks of them, how long a beat counts."""

from broker.shell.state import BrokerState

HEARTBEATS_PER_S = 1000
"""What one primary should receive at most; larger meshes are asked to beat less often."""
HEARD_S_MIN = 2


def beat_every_ms(state: BrokerState) -> int:
    """Return the time between two heartbeats of one member."""
    spread_ms = state.ledger.member_count() * 1000 // HEARTBEATS_PER_S
    return max(state.settings.heartbeat.interval.ms, spread_ms)


def heard_within_s(state: BrokerState) -> int:
    """Return for how long a heartbeat speaks for its sender; wall seconds are what it has."""
    silent_ms = beat_every_ms(state) * state.settings.heartbeat.suspect_after
    return max(HEARD_S_MIN, -(-silent_ms // 1000))
