"""Labelled pictures: found, split and decoded. Nothing here needs Keras."""
