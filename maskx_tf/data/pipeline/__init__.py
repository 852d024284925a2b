"""From a data set to batches: decoding, augmentation, padding, and TFRecord files."""
