"""The use cases as typed functions: train, evaluate, predict, report, export. The commands and notebooks call them."""
