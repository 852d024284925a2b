"""Drawing: detections or ground truth on a picture, a legend to stack below it, and sheets of many pictures.

Classes known by boxes and masks (A) get warm colours and solid lines, those known by boxes alone (B) cool colours,
dashed lines and a marker in the label: colours tell them apart for the colour-blind, too, lines and marker in grey.
"""

from maskx_tf.visualize.objects import draw, enlarged, resized
from maskx_tf.visualize.paint import ANY, class_colour
from maskx_tf.visualize.sheets import contact_sheet, legend

__all__ = ["ANY", "class_colour", "contact_sheet", "draw", "enlarged", "legend", "resized"]
