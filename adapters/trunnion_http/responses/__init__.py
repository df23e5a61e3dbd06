"""Serve OpenAI's Responses API over core types, without a store: bodies in, responses and events out."""
