"""What the right answer is: plain NumPy, wide accumulators, no code shared with the kernels."""
