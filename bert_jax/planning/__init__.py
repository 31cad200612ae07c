"""Estimates of memory, communication and step time for hardware that may be absent."""
