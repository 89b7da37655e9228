"""labels + probabilities -> Evaluation: metrics and intervals in pure NumPy, without Keras."""
