"""The papers' tables: grids of methods over seeds and splits, trained, evaluated and summarised; docs/study.md."""
