"""Training: one readable run around Keras' `fit`, its optimizer, schedule, checkpoints, and its survival."""
