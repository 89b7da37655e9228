"""Pixels -> features: the frozen network runs once over every image, and the store keeps what it said."""
