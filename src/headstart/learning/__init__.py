"""Features -> classifier: heads and what is trained."""
