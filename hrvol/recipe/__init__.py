"""Read, validate and explain recipes, the settings of a segmentation."""
