"""FCIS (Li et al. 2017) and R-FCN: regions read position-sensitive maps, and no weights belong to a region."""
