"""Serve Anthropic's Messages API over core types: bodies in, messages, events and errors out."""
