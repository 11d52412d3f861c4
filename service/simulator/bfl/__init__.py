"""The fake Black Forest Labs API: submit, polling, credits, webhooks, signed result files."""
