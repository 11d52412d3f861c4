"""The load generator: a process of its own, so that it takes nothing from what it measures."""
