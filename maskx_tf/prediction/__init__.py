"""Detections for image files of any size."""
