"""Make what the documentation says of the code out of the code."""
