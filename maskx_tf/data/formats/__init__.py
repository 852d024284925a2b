"""Readers of annotation formats, and the writer of COCO's."""
