"""The synthetic benchmark: scenes of coloured silhouettes, generated and seeded, with masks for some classes alone.

A class is a silhouette of a material, such as a striped amber ring. Most objects overlap a partner so closely that a
box holds both, and only the class says which pixels are meant. `docs/data.md` defines it.

Pixels are the same on any machine: all arithmetic is on whole numbers, and random numbers come from PCG64, whose
streams NumPy keeps for a version.
"""
