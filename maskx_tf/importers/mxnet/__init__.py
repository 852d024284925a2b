"""FCIS and R-FCN of MXNet: a safe reader of `.params` files, and where their tensors go."""
