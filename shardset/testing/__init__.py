"""What tests stand on: tiny pools and releases here; a Hub on this machine in `hub_server`."""

from shardset.testing.tiny import (
    FINGERPRINT,
    tiny_continuous_plan,
    tiny_continuous_space,
    tiny_facts,
    tiny_pixels,
    tiny_plan,
    tiny_space,
    write_tiny_pool,
    write_tiny_release,
    write_tiny_scores,
    write_tiny_selection,
)

__all__ = [
    "FINGERPRINT",
    "tiny_continuous_plan",
    "tiny_continuous_space",
    "tiny_facts",
    "tiny_pixels",
    "tiny_plan",
    "tiny_space",
    "write_tiny_pool",
    "write_tiny_release",
    "write_tiny_scores",
    "write_tiny_selection",
]
