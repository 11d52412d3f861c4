"""The fake fal.ai: queue, synchronous run, webhooks, key set, platform API, result files."""
