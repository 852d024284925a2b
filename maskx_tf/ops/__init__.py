"""Pure functions on tensors: no variables, static shapes."""
