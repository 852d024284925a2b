"""Measurements, run by hand: times are never asserted by tests."""
