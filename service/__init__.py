"""Fluxgate: a webhook-driven orchestration service for long jobs of generative models."""
