"""Model families: a trunk with branches, their losses, and inference."""
