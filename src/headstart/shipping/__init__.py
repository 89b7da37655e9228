"""Run -> the world."""
