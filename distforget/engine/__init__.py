"""Ray and DeepSpeed, and nothing else: carries out the steps of a plan."""
