"""Measurements, run by hand: times are never asserted by tests."""

from maskx_tf.quiet import import_tensorflow

import_tensorflow()  # here, for the processes in which things are measured import this, too
