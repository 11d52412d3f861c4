"""The demonstration: the main job, end to end, with fake providers that misbehave, and checks of what came of it."""
