"""Data sets: readers of many formats to one record type, who may see which mask, checks, a synthetic benchmark."""
