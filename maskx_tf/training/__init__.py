"""Training with Keras' `fit`: optimizer, schedule, checkpoints, logs, and resuming after a kill."""
